//! What the tests share: a broker on demand, the binary under test, naive models. The tests themselves are in `suite/`.

pub mod broker;

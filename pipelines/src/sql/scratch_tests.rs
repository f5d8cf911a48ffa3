use super::*;
#[test]
fn show() {
    let text = std::fs::read_to_string("/tmp/sqlfront/q.sql").unwrap();
    for part in text.split("\n====\n") {
        println!("{}", part.lines().nth(3).unwrap_or_default());
        match parse("demo.sql", part).and_then(|program| plan(&program)) {
            Ok(plans) => for p in plans {
                println!("OK key={:?} times={:?}\n{}\n", p.key, p.times, p.plan.display_indent());
            },
            Err(error) => println!("{error}\n"),
        }
    }
}

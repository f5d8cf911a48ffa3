use super::*;
#[test]
fn show() {
    let text = std::fs::read_to_string("/tmp/sqlfront/q.sql").unwrap();
    for part in text.split("\n====\n") {
        match parse("demo.sql", part).and_then(|program| plan(&program)) {
            Ok(plans) => for p in plans {
                println!("-- {} key={:?} times={:?}\n{}\nANALYZED\n{}\n", p.name, p.key, p.times, p.plan.display_indent(), p.analyzed.display_indent());
            },
            Err(error) => println!("{error}\n"),
        }
    }
}

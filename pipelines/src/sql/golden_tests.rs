//! Golden tables: wrong statements with the exact place and text of their error (`golden/wrong.txt`), and the plan of each element of the
//! dialect (`golden/shapes.txt`). A block is SQL, `----`, what comes out; blocks are parted by `====`. The sources stand behind each
//! block's text, so places are those of the block. With TIDEMILL_BLESS=1 the files are written anew: read the difference.

use super::*;

const SOURCES: &str = "
;CREATE TABLE t (k BIGINT NOT NULL, name VARCHAR, amount DECIMAL(18, 2), ts TIMESTAMP(3) NOT NULL, meta STRUCT<userAgent VARCHAR, ip VARCHAR>,
    tags VARCHAR[], WATERMARK FOR ts AS ts - INTERVAL '5 seconds') WITH (connector = 'kafka', topic = 't', format = 'json');
CREATE TABLE plain (k BIGINT NOT NULL, at TIMESTAMP) WITH (connector = 'file', path = 'x');
CREATE TABLE stamped (k BIGINT NOT NULL, WATERMARK FOR _timestamp AS _timestamp) WITH (connector = 'kafka', topic = 's', format = 'json');
CREATE TABLE loose (at TIMESTAMP, WATERMARK FOR at AS at) WITH (connector = 'kafka', topic = 'l', format = 'json');
";

fn compare(path: &str, golden: &str, answer: impl Fn(&str) -> String) {
    let mut blessed = Vec::new();
    let mut wrong = Vec::new();
    for block in golden.trim_end().split("\n====\n") {
        let (sql, expected) = block.split_once("\n----").unwrap_or((block, ""));
        let found = answer(sql);
        if found.trim_end() != expected.trim() {
            wrong.push(format!("{sql}\n  expected:\n{}\n  found:\n{found}", expected.trim()));
        }
        blessed.push(format!("{sql}\n----\n{}", found.trim_end()));
    }
    if std::env::var_os("TIDEMILL_BLESS").is_some() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sql/golden").join(path);
        std::fs::write(path, blessed.join("\n====\n") + "\n").expect("writes the golden file");
        return;
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n\n{}", wrong.len(), blessed.len(), wrong.join("\n\n"));
}

#[test]
fn wrong_statements_have_their_place_and_say_what_to_write() {
    compare("wrong.txt", include_str!("golden/wrong.txt"), |sql| {
        let answer = parse("f.sql", &format!("{sql}{SOURCES}")).and_then(|program| plan(&program));
        let error = answer.map_or_else(|error| error.to_string(), |_| "NO ERROR".to_owned());
        for noise in ["::", "DataFusion", "Error during", "Schema error", "Utf8", "Int64", "SchemaError", "backtrace", "Some("] {
            assert!(!error.contains(noise), "{sql}\n{error}");
        }
        error
    });
}

/// A block is a wrong text, `----`, and the text that its error's help leads to.
#[test]
fn what_an_error_advises_is_accepted() {
    let planned = |sql: &str| parse("f.sql", &format!("{sql}{SOURCES}")).and_then(|program| plan(&program));
    let pairs = include_str!("golden/remedies.txt").trim_end().split("\n====\n").filter_map(|block| block.split_once("\n----\n"));
    let mut wrong = Vec::new();
    for (sql, remedy) in pairs {
        match planned(sql) {
            Err(error) if error.help.is_some() => {}
            Err(error) => wrong.push(format!("no advice: {error}")),
            Ok(_) => wrong.push(format!("not wrong: {sql}")),
        }
        wrong.extend(planned(remedy).err().map(|error| format!("{remedy}\n{error}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_element_of_the_dialect_has_its_plan() {
    compare("shapes.txt", include_str!("golden/shapes.txt"), |sql| {
        let answer = parse("f.sql", &format!("{sql}{SOURCES}")).and_then(|program| plan(&program));
        let shown = |output: &PlannedOutput| {
            let key = output.key.as_ref().map_or("none, it appends".to_owned(), |key| {
                let names =
                    key.iter().map(|column| if column.output.is_some() { column.name.clone() } else { format!("({})", column.name) });
                format!("[{}]", names.collect::<Vec<_>>().join(", "))
            });
            let fields = output.plan.schema().fields();
            let times: Vec<&str> = time_columns(&output.analyzed)
                .into_iter()
                .filter_map(|index| fields.get(index).map(|field| field.name().as_str()))
                .collect();
            format!("{}: key {key}; times [{}]\n{}", output.name, times.join(", "), output.plan.display_indent())
        };
        answer.map_or_else(|error| error.to_string(), |outputs| outputs.iter().map(shown).collect::<Vec<_>>().join("\n"))
    });
}

#[test]
fn rules_exist_and_settle() {
    let all = datafusion::optimizer::Optimizer::new().rules;
    for name in RULES {
        assert!(all.iter().any(|rule| rule.name() == *name), "{name}");
    }
    let planned = plan(&parse("f.sql", &format!("CREATE MATERIALIZED VIEW v AS SELECT k FROM t WHERE k > 3{SOURCES}")).expect("parses"))
        .expect("plans");
    let again = optimize(planned[0].plan.clone()).expect("optimizes");
    assert_eq!(again, planned[0].plan);
}

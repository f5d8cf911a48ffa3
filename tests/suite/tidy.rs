//! Rules of the house that a machine can hold: every Rust file says what it is, none is too long, nothing is left unfinished.

use std::path::{Path, PathBuf};

/// No Rust file is longer than one person can hold in mind.
const LINES_MAX: usize = 700;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') && name != "tidemill-data" {
            sources(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push(path);
        }
    }
}

fn each_source(mut check: impl FnMut(&Path, &str, &mut Vec<String>)) {
    let (mut files, mut wrong) = (Vec::new(), Vec::new());
    sources(&root(), &mut files);
    assert!(files.len() > 50, "only {} files were looked at", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        check(file.strip_prefix(root()).unwrap(), &text, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    each_source(|file, text, wrong| {
        if !text.starts_with("//!") {
            wrong.push(format!("{}: does not begin with //!", file.display()));
        }
    });
}

#[test]
fn no_file_grows_past_what_one_person_can_hold_in_mind() {
    each_source(|file, text, wrong| {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{}: {lines} lines, at most {LINES_MAX}", file.display()));
        }
    });
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = [
        "TO".to_owned() + "DO",
        "FIX".to_owned() + "ME",
        "un".to_owned() + "implemented!(",
        "to".to_owned() + "do!(",
        "db".to_owned() + "g!(",
    ];
    each_source(|file, text, wrong| {
        for (number, line) in text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| line.contains(mark.as_str())) {
                wrong.push(format!("{}:{}: {mark}", file.display(), number + 1));
            }
        }
    });
}

#[test]
fn operators_and_connectors_never_see_each_other() {
    for (folder, never) in [("operators", "tidemill-connectors"), ("connectors", "tidemill-operators"), ("engine", "tidemill-operators")] {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        assert!(!manifest.contains(never), "{folder} depends on {never}");
    }
    let engine = std::fs::read_to_string(root().join("engine/Cargo.toml")).unwrap();
    assert!(!engine.contains("datafusion") && !engine.contains("rdkafka"), "the engine knows no SQL and no Kafka");
}

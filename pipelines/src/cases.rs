//! The case studies of this build: what `tidemill demo` runs and asks, inside the binary so that it works in any folder.
//!
//! Always: the same files as in `pipelines/<family>/<name>/`; each case's records come from the generator of the same name. To add a
//! case: its folder, its generator, one line here.

/// A case study.
#[derive(Debug)]
pub struct Case {
    /// The folder's name, the generator's and the pipeline's.
    pub name: &'static str,
    /// The family's folder.
    pub family: &'static str,
    /// What it is about, in a line.
    pub summary: &'static str,
    /// `pipeline.sql`.
    pub pipeline_sql: &'static str,
    /// `questions.sql`: each query below a comment `-- Q: …`.
    pub questions_sql: &'static str,
}

/// The line of a case.
macro_rules! case {
    ($family:literal, $name:literal, $summary:literal) => {
        Case {
            name: $name,
            family: $family,
            summary: $summary,
            pipeline_sql: include_str!(concat!("../", $family, "/", $name, "/pipeline.sql")),
            questions_sql: include_str!(concat!("../", $family, "/", $name, "/questions.sql")),
        }
    };
}

/// Every case.
pub static CASES: &[Case] = &[
    case!("clicks", "url_shortener", "what happens to short links, minute by minute: counts, visitors, robots, sessions, hot links"),
    case!("nexmark", "nexmark", "the queries of the Nexmark benchmark over an online auction's people, auctions and bids"),
];

/// The case of that name.
pub fn find(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

impl Case {
    /// The pipeline's path in the repository, for messages.
    pub fn file(&self) -> String {
        format!("pipelines/{}/{}/pipeline.sql", self.family, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_plans_has_questions_and_a_generator() {
        for case in CASES {
            let pipeline = crate::runner::Pipeline::parse(&case.file(), case.pipeline_sql).expect("plans");
            assert_eq!(pipeline.name(), case.name);
            assert!(case.questions_sql.contains("\n-- Q: "), "{}", case.name);
            assert!(tidemill_connectors::generator::find(case.name).is_some(), "{}", case.name);
        }
    }
}

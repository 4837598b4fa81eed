//! Tables in documents, made of the results committed beside them.

use std::path::Path;

use crate::error::{Error, Result};
use crate::notifications;
use crate::record;
use crate::rest;
use crate::summary;

const BEGIN: &str = "<!-- outboard-bench: ";
/// What brief ones leave out.
const DETAILS: [&str; 7] = [
    "rounds",
    "MB/s",
    "mean us",
    "driver us",
    "kicks",
    "calls",
    "noise",
];
const END: &str = "<!-- outboard-bench end -->";

/// The text of the document `file` with its tables made anew.
pub fn refresh(file: &Path, text: &str) -> Result<String> {
    let wrong = |reason: &str| Error::Content {
        path: file.to_owned(),
        reason: reason.to_owned(),
    };
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut fresh = String::new();
    let mut left = text;
    while let Some((before, after)) = left.split_once(BEGIN) {
        let (results, after) = after
            .split_once(" -->\n")
            .ok_or_else(|| wrong("a table's first line does not end in -->"))?;
        let (_, after) = after
            .split_once(END)
            .ok_or_else(|| wrong("a table has no end"))?;
        // A kind of table, unless it is the common one, and where the results are.
        let (kind, path) = results.split_once(' ').unwrap_or(("", results));
        let path = folder.join(path);
        let rows = || record::read(&path).map(|records| summary::rows(&records));
        let table = match kind {
            "" => summary::table(&rows()?).known().markdown(),
            "brief" => {
                let table = summary::table(&rows()?).known();
                table.without(&DETAILS).markdown()
            }
            "notifications" => notifications::table(&rows()?).markdown(),
            "rest" => {
                let seen = record::read(&path)?;
                let [starts, rest] = rest::tables(&seen);
                starts.markdown() + "\n" + &rest.markdown()
            }
            other => return Err(wrong(&format!("there is no kind of table called {other}"))),
        };
        for part in [before, BEGIN, results, " -->\n", &table, END] {
            fresh += part;
        }
        left = after;
    }
    Ok(fresh + left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifications::tests::records;
    use crate::record::Log;
    use crate::summary::tests::record;

    #[test]
    fn tables_follow_their_results() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::append(&folder.path().join("a.jsonl")).unwrap();
        log.write(&record("ours", 1, 1000.0)).unwrap();
        let file = folder.path().join("doc.md");
        let text = format!("One\n{BEGIN}a.jsonl -->\n{END}\nTwo\n");
        let fresh = refresh(&file, &text).unwrap();
        assert!(fresh.starts_with("One\n") && fresh.ends_with(&format!("{END}\nTwo\n")));
        assert!(fresh.contains("| ours "), "{fresh}");
        assert_eq!(refresh(&file, &fresh).unwrap(), fresh);
        assert!(fresh.contains("| noise |"));
        let brief = refresh(&file, &text.replace("a.jsonl", "brief a.jsonl")).unwrap();
        assert!(
            brief.contains("| ours ") && !brief.contains("noise"),
            "{brief}"
        );
        log.write(&record("ours", 2, 3000.0)).unwrap();
        assert_ne!(refresh(&file, &fresh).unwrap(), fresh);
        assert!(refresh(&file, &format!("{BEGIN}b.jsonl -->\n{END}")).is_err());
        assert!(refresh(&file, &format!("{BEGIN}a.jsonl -->\n")).is_err());
        let unknown = refresh(&file, &format!("{BEGIN}pie a.jsonl -->\n{END}"));
        assert!(unknown.unwrap_err().to_string().contains("pie"));
    }

    #[test]
    fn a_table_may_be_of_notifications() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::append(&folder.path().join("n.jsonl")).unwrap();
        for record in records() {
            log.write(&record).unwrap();
        }
        let text = format!("{BEGIN}notifications n.jsonl -->\n{END}\n");
        let fresh = refresh(&folder.path().join("doc.md"), &text).unwrap();
        assert!(fresh.contains("| kicks by flags |"), "{fresh}");
    }
}

//! Tables in documents, made of the results committed beside them.

use std::path::Path;

use crate::error::{Error, Result};
use crate::notifications;
use crate::record;
use crate::summary;

const BEGIN: &str = "<!-- outboard-bench: ";
/// Before the results' path, for a table of few columns.
const BRIEF: &str = "brief ";
/// For one of notifications and latency by depth.
const NOTIFICATIONS: &str = "notifications ";
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
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (results, after) = after
            .split_once(" -->\n")
            .ok_or_else(|| wrong("a table's first line does not end in -->"))?;
        let (_, after) = after
            .split_once(END)
            .ok_or_else(|| wrong("a table has no end"))?;
        let rows = |path: &str| -> Result<Vec<summary::Row>> {
            Ok(summary::rows(&record::read(&folder.join(path))?))
        };
        let table = if let Some(path) = results.strip_prefix(BRIEF) {
            summary::table(&rows(path)?).known().without(&DETAILS)
        } else if let Some(path) = results.strip_prefix(NOTIFICATIONS) {
            notifications::table(&rows(path)?)
        } else {
            summary::table(&rows(results)?).known()
        };
        let table = table.markdown();
        for part in [before, BEGIN, results, " -->\n", &table, END] {
            fresh += part;
        }
        rest = after;
    }
    Ok(fresh + rest)
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

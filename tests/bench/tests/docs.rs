//! The tables of the documents are what the results beside them say.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::path::Path;

use outboard_bench::document;

#[test]
fn tables_are_what_the_results_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let documents = fs::read_dir(root.join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut tables = 0;
    for file in documents.chain([root.join("README.md")]) {
        if file.extension().is_some_and(|suffix| suffix == "md") {
            let text = fs::read_to_string(&file).unwrap();
            tables += text.matches("<!-- outboard-bench: ").count();
            let name = file.display();
            let fresh = document::refresh(&file, &text).unwrap();
            assert!(
                fresh == text,
                "{name} is stale; run: outboard-bench docs {name}"
            );
        }
    }
    assert!(tables > 0, "no document has a table");
}

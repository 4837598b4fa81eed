//! `report`, `table` and `docs`: what was measured before, shown again.

use std::fs;
use std::path::PathBuf;

use super::show::say;
use crate::document;
use crate::error::{Error, Result};
use crate::record;
use crate::report;
use crate::summary;

/// `report`.
#[derive(Debug, clap::Args)]
pub(super) struct Report {
    /// Results, a line of JSON each
    #[arg(value_name = "FILE", required = true, num_args = 1..)]
    results: Vec<PathBuf>,
    /// The page
    #[arg(long, short, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
}

/// `table`.
#[derive(Debug, clap::Args)]
pub(super) struct Table {
    /// Results, a line of JSON each
    #[arg(value_name = "FILE", required = true, num_args = 1..)]
    results: Vec<PathBuf>,
    /// In Markdown
    #[arg(long)]
    markdown: bool,
}

/// `docs`.
#[derive(Debug, clap::Args)]
pub(super) struct Docs {
    /// Markdown files with tables between `<!-- outboard-bench: RESULTS.jsonl -->` and
    /// `<!-- outboard-bench end -->`; the results' path counts from the file's folder, `brief `
    /// before it makes a table of few columns, and `notifications ` one of kicks, calls and latency by depth
    #[arg(value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// Change nothing; fail if a table is not what its results say
    #[arg(long)]
    check: bool,
}

fn records(files: &[PathBuf]) -> Result<Vec<record::Record>> {
    let files = files.iter().map(|file| record::read(file));
    Ok(files.collect::<Result<Vec<_>>>()?.concat())
}

pub(super) fn page(args: &Report) -> Result<()> {
    let page = report::page(&records(&args.results)?)?;
    fs::write(&args.output, page).map_err(Error::file("write", &args.output))
}

pub(super) fn table(args: &Table) -> Result<()> {
    let table = summary::table(&summary::rows(&records(&args.results)?));
    if args.markdown {
        say(table.markdown().trim_end());
    } else {
        table.lines().iter().for_each(|line| say(line));
    }
    Ok(())
}

pub(super) fn docs(args: &Docs) -> Result<()> {
    for file in &args.files {
        let written = fs::read_to_string(file).map_err(Error::file("read", file))?;
        let current = document::refresh(file, &written)?;
        if current == written {
            continue;
        }
        if args.check {
            let file = file.display();
            return Err(Error::Unfit(format!(
                "the tables of {file} are stale; run: outboard-bench docs {file}"
            )));
        }
        fs::write(file, current).map_err(Error::file("write", file))?;
    }
    Ok(())
}

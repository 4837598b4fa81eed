//! A page with tables and plots that needs nothing but itself: no script, no font, no network.

mod notifications;
mod plot;

use std::fmt::Write;

use crate::case::{Case, Path};
use crate::error::Result;
use crate::figures::Figures;
use crate::record::Record;
use crate::summary::{self, Row};
use plot::Curve;

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:1200px;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}\
td,th{padding:2px 9px;text-align:right;white-space:nowrap;border-bottom:1px solid #e4e4e4}\
td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}\
svg{max-width:100%;height:auto;margin:6px}code{font-size:12px;overflow-wrap:anywhere}";

/// The page about some records.
pub fn page(records: &[Record]) -> Result<String> {
    let rows = summary::rows(records);
    let subjects = summary::subjects(records);
    let mut html = String::new();
    html += "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>outboard-bench</title><style>";
    html += STYLE;
    html += "</style><body><h1>outboard-bench</h1>";
    about(&mut html, records);
    for family in families(&rows) {
        let rows: Vec<_> = rows.iter().filter(|row| alike(&row.case, family)).collect();
        heading(&mut html, family);
        for svg in plots(&rows, &subjects)? {
            html += &svg;
        }
        let rows: Vec<Row> = rows.into_iter().cloned().collect();
        table(&mut html, &rows);
    }
    let both_ways = crate::notifications::families(&rows);
    if !both_ways.is_empty() {
        html += "<h2>Notifications and latency</h2><p>Kicks and calls a request by the scale on the left, the \
                 latency by that on the right; with EVENT_IDX and, faintly, with flags.</p>";
        for family in &both_ways {
            html += &notifications::plot(family)?;
        }
    }
    html += "<h2>What was run</h2><table><tr><th>subject</th><th>command</th></tr>";
    for subject in subjects {
        let command = records.iter().find(|record| record.subject == subject);
        let command = command.map_or("", |record| &record.command);
        let _ = write!(
            html,
            "<tr><td>{}</td><td><code>{}</code></td></tr>",
            escape(subject),
            escape(command)
        );
    }
    html += "</table></body></html>\n";
    Ok(html)
}

/// Text that is no markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn about(html: &mut String, records: &[Record]) {
    let mut lines: Vec<String> = Vec::new();
    for record in records {
        let machine = &record.machine;
        let line = format!(
            "{} CPUs, {}, Linux {}; affinity {}",
            machine.cpus, machine.cpu, machine.kernel, record.affinity
        );
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    for line in lines {
        let _ = write!(html, "<p>{}</p>", escape(&line));
    }
    let rounds = records.iter().map(|record| record.round).max().unwrap_or(0);
    let _ = write!(
        html,
        "<p>Medians of {rounds} rounds by turns; faint dots are single rounds. Times in microseconds; CPU \
         time, kicks and calls a request. Noise is the share of the machine that others took.</p>"
    );
}

/// Cases that differ in their depth alone belong into one plot.
fn alike(one: &Case, other: &Case) -> bool {
    let depth = other.depth;
    Case {
        depth,
        ..one.clone()
    } == *other
}

/// The first case of each family.
fn families(rows: &[Row]) -> Vec<&Case> {
    let mut families: Vec<&Case> = Vec::new();
    for row in rows {
        if !families.iter().any(|family| alike(&row.case, family)) {
            families.push(&row.case);
        }
    }
    families
}

fn heading(html: &mut String, family: &Case) {
    let title = family
        .to_string()
        .replace(&format!(", depth {}", family.depth), "");
    let kind = if family.path == Path::Block {
        "block "
    } else {
        ""
    };
    let _ = write!(html, "<h2>{kind}{}</h2>", escape(&title));
}

fn plots(rows: &[&Row], subjects: &[&str]) -> Result<Vec<String>> {
    let mut depths: Vec<_> = rows.iter().map(|row| row.case.depth).collect();
    depths.dedup();
    if depths.len() < 2 {
        return Ok(Vec::new());
    }
    let curves = |name: &str, faint, figure: fn(&Figures) -> Option<f64>| -> Vec<Curve> {
        let subjects = subjects.iter().enumerate();
        let curves = subjects.map(|(colour, subject)| {
            let rows = rows.iter().filter(|row| row.subject == *subject);
            let points = rows
                .clone()
                .filter_map(|row| Some((f64::from(row.case.depth), row.median(figure)?)));
            let rounds = rows.flat_map(|row| {
                let depth = f64::from(row.case.depth);
                row.rounds
                    .iter()
                    .filter_map(move |figures| Some((depth, figure(figures)?)))
            });
            Curve {
                name: format!("{subject}{name}"),
                colour,
                faint,
                points: points.collect(),
                rounds: if faint { Vec::new() } else { rounds.collect() },
            }
        });
        curves
            .filter(|curve| curve.points.iter().any(|point| point.1 > 0.0))
            .collect()
    };
    let mut latencies = curves(", p50", false, |f| Some(f.latency?.p50));
    latencies.extend(curves(", p99", true, |f| Some(f.latency?.p99)));
    let mut notifications = curves(", kicks", false, |f| Some(f.kicks));
    notifications.extend(curves(", calls", true, |f| Some(f.calls)));
    let mut plots = vec![
        plot::over_depth(
            "Rate",
            "requests a second",
            &curves("", false, |f| Some(f.rate)),
        )?,
        plot::over_depth("Latency", "microseconds", &latencies)?,
    ];
    if !notifications.is_empty() {
        plots.push(plot::over_depth(
            "Notifications",
            "a request",
            &notifications,
        )?);
    }
    let cpu = curves("", false, |f| f.backend_cpu);
    if !cpu.is_empty() {
        plots.push(plot::over_depth(
            "CPU time of the backend",
            "microseconds a request",
            &cpu,
        )?);
    }
    Ok(plots)
}

fn table(html: &mut String, rows: &[Row]) {
    html.push_str("<table>");
    for (n, row) in summary::table(rows).rows().iter().enumerate() {
        html.push_str("<tr>");
        let tag = if n == 0 { "th" } else { "td" };
        for cell in row {
            let _ = write!(html, "<{tag}>{}</{tag}>", escape(cell));
        }
        html.push_str("</tr>");
    }
    html.push_str("</table>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::record;

    #[test]
    fn notifications_and_latency_share_a_plot() {
        let page = page(&crate::notifications::tests::records()).unwrap();
        let (_, plot) = page.split_once("Notifications and latency").unwrap();
        for text in [
            "ours, null",
            "calls, by flags",
            "p50 (right)",
            "microseconds",
        ] {
            assert!(plot.contains(text), "{text}");
        }
    }

    #[test]
    fn the_page_has_all_it_needs_within_itself() {
        let mut records = Vec::new();
        for depth in [1, 32] {
            for (subject, rate) in [("ours", 5e5), ("<theirs>", 1e5)] {
                let mut record = record(subject, 1, rate * f64::from(depth));
                record.case.depth = depth;
                records.push(record);
            }
        }
        let page = page(&records).unwrap();
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(
            page.contains("<svg") && page.contains("&lt;theirs&gt;") && !page.contains("<theirs>")
        );
        // The one address is the name of SVG's namespace, which nobody fetches.
        let addresses = page.replace("http://www.w3.org/2000/svg", "");
        for outside in ["http", "<script", "<link", "@import", "url(", "src="] {
            assert!(!addresses.contains(outside), "{outside}");
        }
    }
}

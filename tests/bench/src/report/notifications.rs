//! Notifications and latency over the depth, in one plot with two scales.

use plotters::prelude::*;

use super::plot::{self, Curve, SIZE};
use crate::error::{Error, Result};
use crate::figures::Figures;
use crate::notifications::Family;
use crate::summary::Row;

/// The plot of a family: kicks and calls a request by the scale on the left, the latency by that on the right.
pub(super) fn plot(family: &Family<'_>) -> Result<String> {
    let mut svg = String::new();
    let title = family.title();
    draw(&mut svg, &title, family)
        .map_err(|e| Error::Unfit(format!("cannot plot {title:?}: {e}")))?;
    Ok(svg)
}

fn curve(
    name: &str,
    rows: &[&Row],
    colour: usize,
    faint: bool,
    figure: fn(&Figures) -> Option<f64>,
) -> Curve {
    let points = rows
        .iter()
        .filter_map(|row| Some((f64::from(row.case.depth), row.median(figure)?)));
    Curve {
        name: name.to_owned(),
        colour,
        faint,
        points: points.collect(),
        rounds: Vec::new(),
    }
}

fn draw(
    svg: &mut String,
    title: &str,
    family: &Family<'_>,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let (on, off) = (family.on.as_slice(), family.off.as_slice());
    let counts = [
        curve("kicks", on, 0, false, |f| Some(f.kicks)),
        curve("kicks, by flags", off, 0, true, |f| Some(f.kicks)),
        curve("calls", on, 1, false, |f| Some(f.calls)),
        curve("calls, by flags", off, 1, true, |f| Some(f.calls)),
    ];
    let latencies = [
        curve("p50 (right)", on, 2, false, |f| Some(f.latency?.p50)),
        curve("p50, by flags (right)", off, 2, true, |f| {
            Some(f.latency?.p50)
        }),
    ];
    let all = |curves: &[Curve]| -> Vec<(f64, f64)> {
        curves.iter().flat_map(|c| c.points.clone()).collect()
    };
    let depths = plot::range(all(&latencies).into_iter().map(|point| point.0));
    let micros = plot::range(all(&latencies).into_iter().map(|point| point.1));
    let most = all(&counts).into_iter().map(|point| point.1);
    let most = most.fold(1.0, f64::max) * 1.1;
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(34)
        .y_label_area_size(46)
        .right_y_label_area_size(50)
        .build_cartesian_2d(depths.clone().log_scale(), -0.02..most)?
        .set_secondary_coord(depths.log_scale(), micros.log_scale());
    chart
        .configure_mesh()
        .light_line_style(BLACK.mix(0.04))
        .x_desc("requests outstanding")
        .y_desc("a request")
        .x_label_formatter(&|x| plot::label(*x))
        .y_label_formatter(&|y| format!("{y:.1}"))
        .draw()?;
    chart
        .configure_secondary_axes()
        .y_desc("microseconds")
        .y_label_formatter(&|y| plot::label(*y))
        .draw()?;
    for curve in &counts {
        let line = curve.line();
        chart
            .draw_series(LineSeries::new(curve.points.clone(), line.stroke_width(2)).point_size(3))?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], line.stroke_width(2)));
    }
    for curve in &latencies {
        let line = curve.line();
        chart
            .draw_secondary_series(
                LineSeries::new(curve.points.clone(), line.stroke_width(2)).point_size(3),
            )?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], line.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperMiddle)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .label_font(("sans-serif", 12))
        .draw()?;
    root.present()?;
    Ok(())
}

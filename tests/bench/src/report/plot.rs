//! Plots as SVG, to be written into a page.

use std::ops::Range;

use plotters::prelude::*;

use crate::error::{Error, Result};

/// A curve: its name, and points of (depth, median) with the values of single rounds beside them.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    pub(super) name: String,
    /// Which of the colours; the same for one subject in all plots.
    pub(super) colour: usize,
    /// Drawn faintly, as a second figure of the same subject.
    pub(super) faint: bool,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) rounds: Vec<(f64, f64)>,
}

impl Curve {
    /// How its line is drawn.
    pub(super) fn line(&self) -> RGBAColor {
        self.colour().mix(if self.faint { 0.45 } else { 1.0 })
    }

    fn colour(&self) -> RGBColor {
        let colour = COLOURS.get(self.colour % COLOURS.len());
        colour.copied().unwrap_or(BLACK)
    }
}

/// Told apart also by those who do not see red and green alike (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];

pub(super) const SIZE: (u32, u32) = (560, 340);

/// A plot over the depth, both axes logarithmic: equal ratios are equal distances.
pub(super) fn over_depth(title: &str, unit: &str, curves: &[Curve]) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, title, unit, curves)
        .map_err(|e| Error::Unfit(format!("cannot plot {title:?}: {e}")))?;
    Ok(svg)
}

/// The name of a point on an axis.
pub(super) fn label(value: f64) -> String {
    crate::table::short(value)
}

/// A range that holds all values, and a little more.
pub(super) fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (mut low, mut high) = (f64::INFINITY, 0.0f64);
    for value in values.filter(|value| *value > 0.0) {
        low = low.min(value);
        high = high.max(value);
    }
    if high == 0.0 {
        0.1..10.0
    } else {
        low / 1.5..high * 1.5
    }
}

fn draw(
    svg: &mut String,
    title: &str,
    unit: &str,
    curves: &[Curve],
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let all = || {
        curves
            .iter()
            .flat_map(|curve| curve.points.iter().chain(&curve.rounds))
    };
    let (x, y) = (range(all().map(|p| p.0)), range(all().map(|p| p.1)));
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(34)
        .y_label_area_size(58)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(BLACK.mix(0.04))
        .x_desc("requests outstanding")
        .y_desc(unit)
        .x_label_formatter(&|x| label(*x))
        .y_label_formatter(&|y| label(*y))
        .draw()?;
    for curve in curves {
        let (colour, line) = (curve.colour(), curve.line());
        let visible = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
            points
                .iter()
                .copied()
                .filter(|point| point.1 > 0.0)
                .collect()
        };
        chart
            .draw_series(
                LineSeries::new(visible(&curve.points), line.stroke_width(2)).point_size(3),
            )?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], line.stroke_width(2)));
        let rounds = visible(&curve.rounds);
        chart.draw_series(
            rounds
                .into_iter()
                .map(|at| Circle::new(at, 2, colour.mix(0.3).filled())),
        )?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .label_font(("sans-serif", 12))
        .draw()?;
    root.present()?;
    Ok(())
}

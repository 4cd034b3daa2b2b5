// SPDX-License-Identifier: GPL-2.0-only
//! The pictures of a report, as SVG that goes into an HTML page. Lines and letters are black here; the page gives them the
//! colour of its text, so that they can be read on light and dark grounds.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::SegmentValue;
use plotters::prelude::*;

use crate::lab::statistics::Estimate;

/// The palette of Okabe and Ito ("Color Universal Design", 2008), which colour-blind people can tell apart, without its black and
/// yellow, which not every ground shows; grey is for what others are compared with.
const COLOURS: [RGBColor; 7] = [
    RGBColor(127, 127, 127),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

const WIDTH: u32 = 860;
/// Height of a row of ratios, and of what is around them.
const ROW: u32 = 26;
const AROUND: u32 = 90;
const FONT: (&str, i32) = ("sans-serif", 15);

/// The colour of the n-th scheduler, the baseline being the 0th.
fn colour(n: usize) -> RGBColor {
    COLOURS[if n == 0 { 0 } else { 1 + (n - 1) % (COLOURS.len() - 1) }]
}

/// An SVG drawing.
fn draw(height: u32, paint: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        paint(&area)?;
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing: {error}")
}

/// A row of a picture of ratios.
#[derive(Clone, Debug)]
pub struct Ratio {
    /// What it is of.
    pub label: String,
    /// Whose it is: the number of the scheduler.
    pub scheduler: usize,
    /// The ratio with its interval.
    pub ratio: Estimate,
}

/// Ratios with their intervals, a row each, on a scale where twice and half are equally far from 1.
///
/// # Errors
/// It cannot be drawn.
pub fn ratios(rows: &[Ratio], description: &str) -> Result<String> {
    let ends = rows.iter().flat_map(|row| [row.ratio.low, row.ratio.high, row.ratio.value]);
    let far =
        ends.filter(|end| end.is_finite() && *end > 0.0).map(|end| end.ln().abs()).fold(0.1, f64::max).min(5.0) * 1.08;
    let count = i32::try_from(rows.len())?;
    draw(u32::try_from(rows.len())? * ROW + AROUND, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(52)
            .y_label_area_size(230)
            .build_cartesian_2d(-far..far, (0..(count - 1).max(1)).into_segmented())
            .map_err(failed)?;
        let name = |value: &SegmentValue<i32>| match value {
            SegmentValue::CenterOf(row) => usize::try_from(count - 1 - row)
                .ok()
                .and_then(|row| rows.get(row))
                .map_or(String::new(), |row| row.label.clone()),
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(rows.len())
            .x_labels(9)
            .x_label_formatter(&|log: &f64| format!("{:.2}", log.exp()))
            .y_label_formatter(&name)
            .x_desc(description)
            .label_style(FONT)
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.15))
            .draw()
            .map_err(failed)?;
        let ends = [(0.0, SegmentValue::Exact(0)), (0.0, SegmentValue::Last)];
        chart.draw_series([PathElement::new(ends, BLACK.mix(0.6).stroke_width(1))]).map_err(failed)?;
        for (at, row) in (0..count).rev().zip(rows) {
            let (at, colour) = (SegmentValue::CenterOf(at), colour(row.scheduler));
            let [low, value, high] =
                [row.ratio.low, row.ratio.value, row.ratio.high].map(|end| end.max(1e-9).ln().clamp(-far, far));
            let line = [(low, at.clone()), (high, at.clone())];
            chart.draw_series([PathElement::new(line, colour.stroke_width(3))]).map_err(failed)?;
            chart.draw_series([Circle::new((value, at), 5, colour.filled())]).map_err(failed)?;
        }
        Ok(())
    })
}

/// A curve.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Whose it is.
    pub label: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// How an axis is written.
pub struct Axis<'a> {
    /// What it is.
    pub description: &'a str,
    /// The label of a place.
    pub label: &'a dyn Fn(&f64) -> String,
    /// How many labels, about.
    pub labels: usize,
}

/// Curves in one picture, in the colours of the schedulers from number `first` on; 0 is the baseline.
///
/// # Errors
/// It cannot be drawn.
pub fn curves(curves: &[Curve], x: &Axis<'_>, y: &Axis<'_>, first: usize) -> Result<String> {
    let points = || curves.iter().flat_map(|curve| curve.points.iter());
    let range = |of: fn(&(f64, f64)) -> f64| {
        let (low, high) = points().map(of).fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        match (low < high, low == high) {
            (true, _) => low..high,
            (_, true) => low - 0.5..high + 0.5,
            _ => 0.0..1.0,
        }
    };
    draw(380, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(20)
            .x_label_area_size(52)
            .y_label_area_size(80)
            .build_cartesian_2d(range(|p| p.0), range(|p| p.1))
            .map_err(failed)?;
        chart
            .configure_mesh()
            .x_labels(x.labels)
            .y_labels(y.labels)
            .x_label_formatter(&x.label)
            .y_label_formatter(&y.label)
            .x_desc(x.description)
            .y_desc(y.description)
            .label_style(FONT)
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.15))
            .draw()
            .map_err(failed)?;
        for (number, curve) in curves.iter().enumerate() {
            let colour = colour(first + number);
            // The seventh and later repeat the colours, with thinner lines.
            let style = colour.stroke_width(if number < COLOURS.len() { 3 } else { 1 });
            let drawn = chart.draw_series(LineSeries::new(curve.points.iter().copied(), style)).map_err(failed)?;
            drawn.label(curve.label.clone()).legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .margin(12)
            .legend_area_size(30)
            .label_font(FONT)
            .background_style(TRANSPARENT)
            .border_style(TRANSPARENT)
            .draw()
            .map_err(failed)
    })
}

/// Ends and middle of cividis, whose lightness tells colour-blind people the same as its colours do others (Nunez, Anderton
/// and Renslow, "Optimizing colormaps with consideration for color vision deficiency", 2018).
const HEAT: [(f64, f64, f64); 3] = [(0.0, 34.0, 78.0), (124.0, 123.0, 120.0), (254.0, 232.0, 56.0)];

/// The colour of a probability.
fn heat(p: f64) -> RGBColor {
    let at = p.clamp(0.0, 1.0) * 2.0;
    let (low, part) = if at < 1.0 { (0, at) } else { (1, at - 1.0) };
    let (from, to) = (HEAT[low], HEAT[low + 1]);
    let mix = |from: f64, to: f64| (from + part * (to - from)).round() as u8;
    RGBColor(mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}

/// A probability over two features: `rows[y][x]`, each cell `step` wide, and beside it what the colours mean.
///
/// # Errors
/// It cannot be drawn.
pub fn heat_map(rows: &[Vec<f64>], step: u8, x: &str, y: &str) -> Result<String> {
    let (width, height) = (rows.first().map_or(0, Vec::len), rows.len());
    let end = |count: usize| count as f64 * f64::from(step);
    draw(380, |area| {
        let (map, scale) = area.split_horizontally(560);
        let mut chart = ChartBuilder::on(&map)
            .margin(8)
            .x_label_area_size(52)
            .y_label_area_size(80)
            .build_cartesian_2d(0.0..end(width), 0.0..end(height))
            .map_err(failed)?;
        chart
            .configure_mesh()
            .disable_mesh()
            .x_desc(x)
            .y_desc(y)
            .x_label_formatter(&|v| format!("{v:.0}"))
            .y_label_formatter(&|v| format!("{v:.0}"))
            .label_style(FONT)
            .draw()
            .map_err(failed)?;
        let cells = rows.iter().enumerate().flat_map(|(row, line)| {
            line.iter().enumerate().map(move |(column, p)| {
                let (left, low) = (end(column), end(row));
                let corners = [(left, low), (left + f64::from(step), low + f64::from(step))];
                Rectangle::new(corners, heat(*p).filled())
            })
        });
        chart.draw_series(cells).map_err(failed)?;
        let mut legend = ChartBuilder::on(&scale)
            .margin(8)
            .margin_right(150)
            .x_label_area_size(52)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..1.0, 0.0..1.0)
            .map_err(failed)?;
        legend
            .configure_mesh()
            .disable_mesh()
            .disable_x_axis()
            .y_desc("probability to migrate")
            .y_label_formatter(&|p| format!("{p:.1}"))
            .label_style(FONT)
            .draw()
            .map_err(failed)?;
        let steps = (0..50).map(|i| {
            let low = f64::from(i) / 50.0;
            Rectangle::new([(0.0, low), (1.0, low + 0.02)], heat(low + 0.01).filled())
        });
        legend.draw_series(steps).map_err(failed)?;
        Ok(())
    })
}

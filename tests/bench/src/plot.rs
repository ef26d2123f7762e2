//! Plots in SVG: one figure per number of connections for each row, with the spread over the rounds.

use std::fmt::{self, Write};

use crate::load::Keys;
use crate::rate::{Metric, Series};
use crate::spread::Spread;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
/// Of the area for the lines.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 540.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 370.0;

/// Told apart by people who see few colours, too (Okabe and Ito).
const COLOURS: [&str; 7] = ["#000000", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#d55e00"];

/// Plots a metric over the connections.
pub(crate) fn svg(all: &[Series], keys: Keys, metric: Metric) -> String {
    let series: Vec<&Series> = all.iter().filter(|series| series.keys == keys).collect();
    let mut text = String::new();
    draw(&mut text, &series, keys, metric).expect("a String takes everything");
    text
}

fn draw(text: &mut String, all: &[&Series], keys: Keys, metric: Metric) -> fmt::Result {
    let points = |row: usize| {
        let spreads =
            all.iter().map(move |series| Spread::of((metric.of)(&series.rows[row]).iter().copied()));
        spreads.enumerate().filter_map(|(index, spread)| Some((index, spread?)))
    };
    let rows = all.first().map_or(&[][..], |series| &series.rows);
    let most = (0..rows.len()).flat_map(points).map(|(_, spread)| spread.most).fold(0.0, f64::max);
    let top = round_up(most);
    let x = |index: usize| LEFT + (RIGHT - LEFT) * (index as f64 + 0.5) / all.len() as f64;
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * value / top;

    writeln!(
        text,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">"#
    )?;
    writeln!(text, r#"<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>"#)?;
    let title = format!("{}, {} keys, by connections", metric.name, format!("{keys:?}").to_lowercase());
    writeln!(text, r#"<text x="{LEFT}" y="24" font-size="14">{title}</text>"#)?;
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let at = y(value);
        writeln!(text, r##"<path d="M{LEFT} {at:.1}H{RIGHT}" stroke="#dddddd"/>"##)?;
        writeln!(text, r#"<text x="{}" y="{:.1}" text-anchor="end">{value}</text>"#, LEFT - 8.0, at + 4.0)?;
    }
    for (index, series) in all.iter().enumerate() {
        let (at, connections) = (x(index), series.connections);
        writeln!(
            text,
            r#"<text x="{at:.1}" y="{}" text-anchor="middle">{connections}</text>"#,
            BOTTOM + 20.0
        )?;
    }
    for (row, figures) in rows.iter().enumerate() {
        let colour = COLOURS[row % COLOURS.len()];
        // A little apart, so that the spreads of two rows do not cover each other.
        let shift = 4.0 * (row as f64 - (rows.len() - 1) as f64 / 2.0);
        let mut line = String::new();
        for (index, Spread { median, least, most }) in points(row) {
            let at = x(index) + shift;
            write!(line, "{}{at:.1} {:.1}", if line.is_empty() { 'M' } else { 'L' }, y(median))?;
            writeln!(text, r#"<path d="M{at:.1} {:.1}V{:.1}" stroke="{colour}"/>"#, y(least), y(most))?;
            writeln!(text, r#"<circle cx="{at:.1}" cy="{:.1}" r="3" fill="{colour}"/>"#, y(median))?;
        }
        writeln!(text, r#"<path d="{line}" stroke="{colour}" fill="none"/>"#)?;
        let (at, name) = (TOP + 20.0 * (row as f64 + 1.0), figures.row.name());
        writeln!(
            text,
            r#"<rect x="{}" y="{}" width="10" height="10" fill="{colour}"/>"#,
            RIGHT + 15.0,
            at - 9.0
        )?;
        writeln!(text, r#"<text x="{}" y="{at}">{name}</text>"#, RIGHT + 30.0)?;
    }
    writeln!(text, "</svg>")
}

/// The next of 1, 2, 4, 6, 8, 10, 20 and so on: a quarter of each can be read.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 6.0, 8.0];
    steps.into_iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::{Figures, METRICS};
    use crate::row::Row;

    #[test]
    fn axes_end_at_a_figure_that_can_be_read() {
        for (value, expected) in
            [(0.0, 1.0), (1.0, 1.0), (1.1, 2.0), (41_000.0, 60_000.0), (83.0, 100.0), (0.3, 0.4)]
        {
            assert!((round_up(value) - expected).abs() < 1e-9 * expected, "{value}: {}", round_up(value));
        }
    }

    #[test]
    fn each_row_has_a_line_through_its_medians_and_other_keys_are_left_out() {
        let series = |keys, connections, figure: f64| Series {
            keys,
            connections,
            rows: vec![Figures {
                row: Row::Memory,
                per_second: vec![figure, figure / 2.0, figure / 4.0],
                p50_us: vec![],
                p99_us: vec![],
                cpu_us: vec![],
                hits: vec![],
            }],
            disturbed: vec![],
        };
        let all = [series(Keys::Hot, 1, 100.0), series(Keys::Random, 1, 900.0), series(Keys::Hot, 64, 50.0)];
        let svg = svg(&all, Keys::Hot, METRICS[0]);
        // Half and a quarter of the height: 370 - 330 / 2 and 370 - 330 / 4.
        assert!(svg.contains(r#"d="M187.5 205.0L422.5 287.5""#), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2);
    }
}

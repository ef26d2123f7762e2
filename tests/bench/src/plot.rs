//! Plots in SVG: a line for each thing that is compared, with the spread over the rounds. They bring their own
//! background, so that they can be read on a dark page, too.

use std::fmt::{self, Write};

use crate::crossing::{BATCHES, Cost, Load, VALUES, Way};
use crate::load::Keys;
use crate::rate::{Metric, Series};
use crate::row::Row;
use crate::spread::Spread;

/// What is drawn.
#[derive(Debug)]
pub(crate) struct Plot {
    title: String,
    /// What the axis below says.
    across: Vec<String>,
    scale: Scale,
    lines: Vec<Line>,
}

/// One of the things that are compared; a point for each place on the axis below, unless it was not measured.
#[derive(Debug)]
struct Line {
    name: String,
    points: Vec<Option<Spread>>,
}

/// What the axis at the side is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    /// From zero.
    Linear,
    /// Each step ten times the one before.
    Decades,
}

/// All plots of the loads.
pub(crate) fn of_rates(all: &[Series], keys: Keys, metric: Metric) -> Plot {
    let series: Vec<&Series> = all.iter().filter(|series| series.keys == keys).collect();
    let rows = series.first().map_or(&[][..], |series| &series.rows);
    let points = |row: usize| {
        series.iter().map(|series| Spread::of((metric.of)(&series.rows[row]).iter().copied())).collect()
    };
    Plot {
        title: format!("{}, {} keys, by connections", metric.name, keys.name()),
        across: series.iter().map(|series| series.connections.to_string()).collect(),
        scale: if metric.spans_decades { Scale::Decades } else { Scale::Linear },
        lines: rows
            .iter()
            .enumerate()
            .map(|(row, figures)| Line { name: figures.row.name().into(), points: points(row) })
            .collect(),
    }
}

/// What a key costs, over the size of a batch and over that of a value.
pub(crate) fn of_costs(costs: &[Cost]) -> [Plot; 2] {
    let lines = |loads: &[Load]| {
        Way::ALL.map(|way| {
            let cost = |load: &Load| costs.iter().find(|cost| cost.way == way && cost.load == *load);
            let points = loads.iter().map(|load| Spread::of(cost(load)?.cpu_us.iter().copied()));
            Line { name: way.name().into(), points: points.collect() }
        })
    };
    let plot = |title: &str, across: Vec<String>, loads: &[Load]| Plot {
        title: title.into(),
        across,
        scale: Scale::Decades,
        lines: lines(loads).into(),
    };
    [
        plot(
            "CPU us per key, values of 64 B, by keys looked up together",
            BATCHES.map(|batch| batch.to_string()).into(),
            &BATCHES.map(|batch| Load { batch, value_bytes: 64 }),
        ),
        plot(
            "CPU us per key, looked up one by one, by size of value",
            VALUES.map(bytes).into(),
            &VALUES.map(|value_bytes| Load { batch: 1, value_bytes }),
        ),
    ]
}

/// `16 KiB`
pub(crate) fn bytes(number: usize) -> String {
    match number {
        0..1024 => format!("{number} B"),
        1024..0x10_0000 => format!("{} KiB", number >> 10),
        _ => format!("{} MiB", number >> 20),
    }
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
/// Of the area for the lines.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 540.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 380.0;

/// Told apart by people who see few colours, too (Okabe and Ito; without the yellow, which white hides).
const COLOURS: [&str; 7] = ["#000000", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#d55e00"];

/// What tells lines of one colour apart.
const DASHES: [&str; 2] = ["", r#" stroke-dasharray="6 3""#];
const _: () = assert!(Row::ALL.len() <= COLOURS.len() * DASHES.len());

impl Plot {
    /// A name for its file, without the extension.
    pub(crate) fn file(&self) -> String {
        let title = self.title.to_lowercase();
        let words = title.split(|letter: char| !letter.is_ascii_alphanumeric());
        words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
    }

    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    pub(crate) fn svg(&self) -> String {
        let mut text = String::new();
        self.draw(&mut text).expect("a String takes everything");
        text
    }

    fn draw(&self, text: &mut String) -> fmt::Result {
        let Self { title, across, lines, .. } = self;
        let axis = self.axis();
        let x = |index: usize| LEFT + (RIGHT - LEFT) * (index as f64 + 0.5) / across.len() as f64;
        let y = |value: f64| BOTTOM - (BOTTOM - TOP) * axis.share(value);
        writeln!(
            text,
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" fill="#222222">"##
        )?;
        writeln!(text, r#"<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="white"/>"#)?;
        writeln!(text, r#"<text x="{LEFT}" y="28" font-size="14" font-weight="bold">{title}</text>"#)?;
        for value in axis.steps() {
            let (at, label) = (y(value), readable(value));
            writeln!(text, r##"<path d="M{LEFT} {at:.1}H{RIGHT}" stroke="#dddddd"/>"##)?;
            writeln!(
                text,
                r#"<text x="{}" y="{:.1}" text-anchor="end">{label}</text>"#,
                LEFT - 8.0,
                at + 4.0
            )?;
        }
        for (index, label) in across.iter().enumerate() {
            let (at, below) = (x(index), BOTTOM + 20.0);
            writeln!(text, r#"<text x="{at:.1}" y="{below}" text-anchor="middle">{label}</text>"#)?;
        }
        for (number, Line { name, points }) in lines.iter().enumerate() {
            let (colour, dash) =
                (COLOURS[number % COLOURS.len()], DASHES[number / COLOURS.len() % DASHES.len()]);
            // A little apart, so that the spreads of two rows do not cover each other.
            let shift = 4.0 * (number as f64 - (lines.len() - 1) as f64 / 2.0);
            let mut path = String::new();
            let measured = points.iter().enumerate().filter_map(|(index, point)| Some((index, (*point)?)));
            for (index, Spread { median, least, most }) in measured {
                let at = x(index) + shift;
                write!(path, "{}{at:.1} {:.1}", if path.is_empty() { 'M' } else { 'L' }, y(median))?;
                writeln!(text, r#"<path d="M{at:.1} {:.1}V{:.1}" stroke="{colour}"/>"#, y(least), y(most))?;
                writeln!(text, r#"<circle cx="{at:.1}" cy="{:.1}" r="3" fill="{colour}"/>"#, y(median))?;
            }
            writeln!(text, r#"<path d="{path}" stroke="{colour}" stroke-width="1.5"{dash} fill="none"/>"#)?;
            let (at, before) = (TOP + 20.0 * (number as f64 + 0.5), RIGHT + 20.0);
            writeln!(
                text,
                r#"<path d="M{before} {}h18" stroke="{colour}" stroke-width="3"{dash}/>"#,
                at - 4.0
            )?;
            writeln!(text, r#"<text x="{}" y="{at}">{name}</text>"#, before + 24.0)?;
        }
        writeln!(text, "</svg>")
    }

    fn axis(&self) -> Axis {
        let spreads = || self.lines.iter().flat_map(|line| &line.points).flatten();
        let most = spreads().map(|spread| spread.most).fold(0.0, f64::max);
        // No processor time at all is less than could be seen; it has no logarithm.
        let least = spreads().map(|spread| spread.least).filter(|least| *least > 0.0).fold(most, f64::min);
        match self.scale {
            Scale::Decades if most > 0.0 => {
                let (bottom, top) = (least.log10().floor(), most.log10().ceil());
                Axis::Decades { bottom, top: top.max(bottom + 1.0) }
            }
            _ => Axis::Linear { top: round_up(most) },
        }
    }
}

/// Where figures are at the side.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Axis {
    Linear {
        top: f64,
    },
    /// In powers of ten.
    Decades {
        bottom: f64,
        top: f64,
    },
}

impl Axis {
    /// How far up a figure is, from 0 to 1.
    fn share(self, value: f64) -> f64 {
        match self {
            Self::Linear { top } => value / top,
            Self::Decades { bottom, top } => ((value.log10() - bottom) / (top - bottom)).max(0.0),
        }
    }

    /// The figures with a line across.
    fn steps(self) -> Vec<f64> {
        match self {
            Self::Linear { top } => (0..=4).map(|step| top * f64::from(step) / 4.0).collect(),
            Self::Decades { bottom, top } => {
                (bottom as i32..=top as i32).map(|power| 10_f64.powi(power)).collect()
            }
        }
    }
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

/// `15k`, `0.25`: without what powers of ten leave at the end.
fn readable(value: f64) -> String {
    let (value, unit) = if value >= 10_000.0 { (value / 1000.0, "k") } else { (value, "") };
    let digits = format!("{value:.3}");
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::rate::{Figures, METRICS};

    #[test]
    fn axes_end_at_a_figure_that_can_be_read() {
        for (value, expected) in
            [(0.0, 1.0), (1.0, 1.0), (1.1, 2.0), (41_000.0, 60_000.0), (83.0, 100.0), (0.3, 0.4)]
        {
            assert!((round_up(value) - expected).abs() < 1e-9 * expected, "{value}: {}", round_up(value));
        }
        for (value, expected) in [(0.0, "0"), (0.1, "0.1"), (7.5, "7.5"), (100.0, "100"), (15_000.0, "15k")] {
            assert_eq!(readable(value), expected);
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
        let plot = of_rates(&all, Keys::Hot, METRICS[0]);
        let svg = plot.svg();
        // Half and a quarter of the height: 380 - 330 / 2 and 380 - 330 / 4.
        assert!(svg.contains(r#"d="M187.5 215.0L422.5 297.5""#), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2);
        assert_eq!(plot.file(), "requests-s-hot-keys-by-connections");
    }

    #[test]
    fn no_two_rows_look_alike() {
        let lines = Row::ALL.map(|row| Line { name: row.name().into(), points: Vec::new() });
        let plot = Plot { title: String::new(), across: vec![], scale: Scale::Linear, lines: lines.into() };
        let svg = plot.svg();
        let looks = svg.lines().filter_map(|line| line.split_once("h18\" ").map(|(_, look)| look));
        assert_eq!(looks.collect::<HashSet<_>>().len(), Row::ALL.len(), "{svg}");
    }

    #[test]
    fn figures_that_are_far_apart_are_as_far_from_each_other_as_their_decades() {
        let spread = |median| Some(Spread { median, least: median, most: median });
        let line = Line { name: String::new(), points: vec![spread(0.2), spread(2.0), None, spread(200.0)] };
        let across = ["a", "b", "c", "d"].map(String::from).into();
        let plot = Plot { title: String::new(), across, scale: Scale::Decades, lines: vec![line] };
        let axis = plot.axis();
        assert_eq!(axis, Axis::Decades { bottom: -1.0, top: 3.0 });
        assert_eq!(
            axis.steps().into_iter().map(readable).collect::<Vec<_>>(),
            ["0.1", "1", "10", "100", "1000"]
        );
        assert!((axis.share(10.0) - 0.5).abs() < 1e-9);
        assert!(axis.share(0.0) >= 0.0);
    }
}

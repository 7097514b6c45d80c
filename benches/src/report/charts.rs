//! The plots: SVG drawn by hand, since three kinds of chart don't make up for a library.
//!
//! Labels and figures stand in columns of their own beside the plot, so that nothing can overlap whatever the values
//! are. A contender has the same colour everywhere.

use std::fmt::Write;

use super::table::figure;
use crate::contenders::{
    DIRECT, DNAT, DOCKER_PROXY, HAPROXY, NETPROXY, NGINX, PORTABLE, SOCAT, TOKIO_SPLICE, URING,
};
use crate::stats::Summary;

const WIDTH: f64 = 460.0;
/// The plot is between these; names are to the left, figures to the right.
const LEFT: f64 = 128.0;
const RIGHT: f64 = 352.0;
const TOP: f64 = 34.0;
const ROW: f64 = 21.0;
const BAR: f64 = 13.0;

/// What a contender has reached.
pub(super) struct Bar<'a> {
    pub(super) name: &'a str,
    pub(super) value: Option<Summary>,
}

/// The middle and the slow end of a contender's latencies.
pub(super) struct Range<'a> {
    pub(super) name: &'a str,
    /// p50 and p99, microseconds.
    pub(super) ends: Option<(f64, f64)>,
}

/// A contender over several loads; a point for each of them.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) points: Vec<Option<f64>>,
}

pub(super) fn colour(name: &str) -> &'static str {
    match name {
        DIRECT => "#8a9099",
        DNAT => "#b9bec6",
        DOCKER_PROXY => "#2f6fd0",
        HAPROXY => "#7b5ea7",
        NGINX => "#4f9a55",
        SOCAT => "#b08d57",
        TOKIO_SPLICE => "#c77ba6",
        NETPROXY | PORTABLE => "#f0a04b",
        URING => "#d9480f",
        _ => "#444444",
    }
}

/// Horizontal bars with whiskers from the lowest to the highest round, and docker-proxy's median as a line through all.
pub(super) fn bars(title: &str, unit: &str, bars: &[Bar<'_>]) -> String {
    let longest = bars.iter().filter_map(|bar| bar.value).fold(0.0_f64, |most, one| most.max(one.max));
    let x = |value: f64| if longest > 0.0 { LEFT + value.max(0.0) / longest * (RIGHT - LEFT) } else { LEFT };
    let bottom = TOP + ROW * bars.len() as f64;
    let mut svg = Svg::new(title, unit, bottom + 6.0);
    for (at, bar) in bars.iter().enumerate() {
        let middle = TOP + ROW * (at as f64 + 0.5);
        svg.name(bar.name, middle);
        let Some(value) = bar.value else {
            svg.value("–", middle);
            continue;
        };
        svg.rect((LEFT, middle - BAR / 2.0), (x(value.median) - LEFT, BAR), colour(bar.name));
        if value.max > value.min {
            let (low, high) = (x(value.min), x(value.max));
            svg.line((low, middle), (high, middle), "whisker");
            svg.line((low, middle - 3.0), (low, middle + 3.0), "whisker");
            svg.line((high, middle - 3.0), (high, middle + 3.0), "whisker");
        }
        svg.value(&figure(value.median), middle);
    }
    svg.line((LEFT, TOP), (LEFT, bottom), "axis");
    let reference = bars.iter().find(|bar| bar.name == DOCKER_PROXY).and_then(|bar| bar.value);
    if let Some(reference) = reference {
        svg.line((x(reference.median), TOP), (x(reference.median), bottom), "reference");
    }
    svg.end()
}

/// From p50 (full) to p99 (hollow) on a logarithmic scale.
pub(super) fn ranges(title: &str, ranges: &[Range<'_>]) -> String {
    let ends = || ranges.iter().filter_map(|range| range.ends).filter(|(p50, _)| *p50 > 0.0);
    let low = ends().fold(f64::INFINITY, |low, (p50, _)| low.min(p50)) / 1.25;
    let high = ends().fold(0.0_f64, |high, (_, p99)| high.max(p99)) * 1.25;
    let scale = if high > low { (RIGHT - LEFT) / (high / low).ln() } else { 0.0 };
    let x = |value: f64| LEFT + (value / low).ln().max(0.0) * scale;
    let bottom = TOP + ROW * ranges.len() as f64;
    let mut svg = Svg::new(title, "p50 ● – p99 ○, µs, logarithmic", bottom + 18.0);
    for tick in ticks(low, high) {
        svg.line((x(tick), TOP), (x(tick), bottom), "grid");
        svg.text((x(tick), bottom + 13.0), "tick", &figure_short(tick));
    }
    for (at, range) in ranges.iter().enumerate() {
        let middle = TOP + ROW * (at as f64 + 0.5);
        svg.name(range.name, middle);
        let Some((p50, p99)) = range.ends.filter(|(p50, _)| *p50 > 0.0) else {
            svg.value("–", middle);
            continue;
        };
        let paint = colour(range.name);
        let _ = write!(
            svg.body,
            "<line x1=\"{:.1}\" y1=\"{middle:.1}\" x2=\"{:.1}\" y2=\"{middle:.1}\" stroke=\"{paint}\" stroke-width=\"3\"/>\
             <circle cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"4.5\" fill=\"{paint}\"/>\
             <circle cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"4\" fill=\"#fff\" stroke=\"{paint}\" stroke-width=\"2\"/>",
            x(p50),
            x(p99),
            x(p50),
            x(p99),
        );
        svg.value(&format!("{} – {}", figure(p50), figure(p99)), middle);
    }
    svg.end()
}

/// Lines over columns with names; the contenders' names stand at the ends, moved apart where they would meet.
pub(super) fn lines(title: &str, unit: &str, columns: &[&str], lines: &[Line<'_>]) -> String {
    const HEIGHT: f64 = 260.0;
    const WIDE: f64 = 700.0;
    const FROM: f64 = 48.0;
    const TO: f64 = 560.0;
    let highest = lines.iter().flat_map(|line| line.points.iter().flatten()).fold(1.0_f64, |a, b| a.max(*b));
    let step = nice_step(highest / 5.0);
    let top = (highest / step).ceil() * step;
    let y = |value: f64| TOP + (1.0 - value / top) * HEIGHT;
    let x = |at: usize| FROM + (TO - FROM) * at as f64 / columns.len().saturating_sub(1).max(1) as f64;
    let mut svg = Svg::sized(WIDE, title, unit, TOP + HEIGHT + 24.0);
    let mut tick = 0.0;
    while tick <= top + step / 2.0 {
        svg.line((FROM, y(tick)), (TO, y(tick)), "grid");
        svg.text((FROM - 6.0, y(tick) + 4.0), "left-tick", &figure_short(tick));
        tick += step;
    }
    for (at, column) in columns.iter().enumerate() {
        svg.text((x(at), TOP + HEIGHT + 16.0), "tick", column);
    }
    let mut labels = Vec::new();
    for line in lines {
        let points = line.points.iter().enumerate().filter_map(|(at, value)| Some((x(at), y((*value)?))));
        let path: Vec<String> = points.clone().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let paint = colour(line.name);
        let _ = write!(
            svg.body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{paint}\" stroke-width=\"2.2\"/>",
            path.join(" ")
        );
        for (x, y) in points.clone() {
            let _ = write!(svg.body, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{paint}\"/>");
        }
        labels.extend(points.clone().next_back().map(|(_, y)| (y, line.name)));
    }
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    // The lowest may not leave the plot, so they are moved apart upwards from there.
    let mut room = TOP + HEIGHT;
    for (y, name) in labels.into_iter().rev() {
        let at = y.min(room);
        room = at - 14.0;
        let _ = write!(
            svg.body,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{}\" class=\"end\">{}</text>",
            TO + 10.0,
            at + 4.0,
            colour(name),
            escape(name)
        );
    }
    svg.end()
}

/// One, two or five times a power of ten, not below `at_least`.
fn nice_step(at_least: f64) -> f64 {
    let power = 10_f64.powf(at_least.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|step| *step >= at_least)
        .unwrap_or(10.0 * power)
}

/// Where a logarithmic axis has its marks: at powers of ten, with twos and fives between if those were too few.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    // False for infinities, too.
    let sensible = low > 0.0 && high > low && high < 1e12;
    if !sensible {
        return Vec::new();
    }
    let digits: &[f64] = if high / low > 150.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let mut power = 10_f64.powf(low.log10().floor());
    let mut ticks = Vec::new();
    while power <= high {
        ticks.extend(digits.iter().map(|digit| digit * power).filter(|tick| (low..=high).contains(tick)));
        power *= 10.0;
    }
    ticks
}

/// Of round numbers.
fn figure_short(value: f64) -> String {
    if value >= 1e6 {
        format!("{}M", value / 1e6)
    } else if value >= 1e3 {
        format!("{}k", value / 1e3)
    } else {
        format!("{}", (value * 100.0).round() / 100.0)
    }
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A chart that is being drawn. Writing to a string doesn't fail, so nobody looks whether it did.
struct Svg {
    body: String,
}

impl Svg {
    fn new(title: &str, unit: &str, height: f64) -> Self {
        Self::sized(WIDTH, title, unit, height)
    }

    fn sized(width: f64, title: &str, unit: &str, height: f64) -> Self {
        let title = escape(title);
        let body = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height:.0}\" width=\"{width}\" role=\"img\" \
             aria-label=\"{title}\"><text x=\"0\" y=\"14\" class=\"title\">{title}</text>\
             <text x=\"{width}\" y=\"14\" class=\"unit\">{}</text>",
            escape(unit)
        );
        Self { body }
    }

    fn end(self) -> String {
        self.body + "</svg>\n"
    }

    fn name(&mut self, name: &str, middle: f64) {
        self.text((LEFT - 8.0, middle + 4.0), "name", name);
    }

    fn value(&mut self, value: &str, middle: f64) {
        self.text((WIDTH, middle + 4.0), "value", value);
    }

    fn text(&mut self, (x, y): (f64, f64), class: &str, text: &str) {
        let text = escape(text);
        let _ = write!(self.body, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>");
    }

    fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        let _ = write!(
            self.body,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"
        );
    }

    fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), paint: &str) {
        let _ = write!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{paint}\"/>"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_axes() {
        assert_eq!(ticks(8.0, 60.0), [10.0, 20.0, 50.0]);
        assert_eq!(ticks(8.0, 20_000.0), [10.0, 100.0, 1000.0, 10_000.0]);
        assert_eq!(ticks(f64::INFINITY, 0.0), [] as [f64; 0]);
        assert_eq!([0.3, 1.0, 1.1, 4.0, 7.0].map(nice_step), [0.5, 1.0, 2.0, 5.0, 10.0]);
    }

    #[test]
    fn nothing_to_draw_is_drawn_without_numbers_that_are_none() {
        let empty = [
            bars("a", "b", &[Bar { name: "x", value: None }]),
            ranges("a", &[Range { name: "x", ends: None }]),
            lines("a", "b", &["1"], &[Line { name: "x", points: vec![None] }]),
        ];
        for svg in empty {
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}

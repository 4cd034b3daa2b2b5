// SPDX-License-Identifier: GPL-2.0-only
//! `--monitor` in a terminal: how busy each domain is, how long tasks wait, what is decided, and how learning goes.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use log::LevelFilter;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Bar, BarChart, BarGroup, Block, Chart, Dataset, GraphType, Paragraph};
use ratatui::{DefaultTerminal, Frame};
use scx_stats::prelude::*;
use scx_utils::Cpumask;

use crate::stats::{Metrics, time};

/// Intervals that curves show.
const HISTORY: usize = 240;
/// The terminal is looked at for a key this often.
const KEYS: Duration = Duration::from_millis(100);
/// Colours that can be told apart by everybody, on dark and light grounds.
const COLOURS: [Color; 3] = [Color::Blue, Color::Yellow, Color::Magenta];

/// Show the running scheduler until a key ends it, or `stop` is set.
///
/// # Errors
/// When the terminal cannot be used.
pub fn run(interval: Duration, stop: &Arc<AtomicBool>) -> Result<()> {
    // The screen is ours.
    log::set_max_level(LevelFilter::Off);
    let mut terminal = ratatui::try_init().context("cannot take over the terminal: for lines instead, add | cat")?;
    let result = watch(&mut terminal, interval, stop);
    ratatui::restore();
    result
}

fn watch(terminal: &mut DefaultTerminal, interval: Duration, stop: &Arc<AtomicBool>) -> Result<()> {
    let mut view = View::default();
    let mut client: Option<StatsClient> = None;
    while !stop.load(Ordering::Relaxed) {
        let asked = match client.take() {
            Some(client) => Ok(client),
            None => StatsClient::new().connect(Some(2000)),
        };
        let answer = asked.and_then(|mut asked| {
            let metrics = asked.request::<Metrics>("stats", Vec::new())?;
            client = Some(asked);
            Ok(metrics)
        });
        match answer {
            Ok(metrics) => view.add(metrics, CpuTimes::read()),
            Err(error) => view.trouble = Some(why(&error)),
        }
        let until = Instant::now() + interval;
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            terminal.draw(|frame| view.draw(frame)).context("cannot draw")?;
            if quits(KEYS.min(until.saturating_duration_since(Instant::now())))? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Why there is nothing to show.
fn why(error: &anyhow::Error) -> String {
    match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused) => "no scx_rl runs here; waiting for one".into(),
        Some(ErrorKind::PermissionDenied) => "only root may ask the scheduler that runs: try sudo".into(),
        _ => format!("the scheduler that runs gave no answer ({error:#}); asking again"),
    }
}

/// Wait for a key; is it one that ends this?
fn quits(wait: Duration) -> Result<bool> {
    if !event::poll(wait).context("cannot read the keyboard")? {
        return Ok(false);
    }
    let Event::Key(key) = event::read().context("cannot read the keyboard")? else { return Ok(false) };
    let interrupt = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
    Ok(interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

/// Time of each CPU since boot, in ticks of the kernel: busy, and all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct CpuTimes(Vec<(u64, u64)>);

impl CpuTimes {
    fn read() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// CPUs that are offline have none.
    fn parse(stat: &str) -> Self {
        let mut times = Vec::new();
        for line in stat.lines() {
            let mut words = line.split_whitespace();
            let Some(Ok(cpu)) = words.next().and_then(|w| w.strip_prefix("cpu")).map(str::parse::<usize>) else {
                continue;
            };
            // user nice system idle iowait irq softirq steal; guests are in user
            let ticks: Vec<u64> = words.take(8).filter_map(|word| word.parse().ok()).collect();
            let all: u64 = ticks.iter().sum();
            let idle = ticks.get(3).unwrap_or(&0) + ticks.get(4).unwrap_or(&0);
            if times.len() <= cpu && cpu < 1 << 16 {
                times.resize(cpu + 1, (0, 0));
            }
            if let Some(place) = times.get_mut(cpu) {
                *place = (all - idle, all);
            }
        }
        Self(times)
    }

    /// Share of their time that these CPUs were busy since `earlier`, 0 to 1.
    fn load(&self, earlier: &CpuTimes, cpus: &Cpumask) -> f64 {
        let (mut busy, mut all) = (0, 0);
        for cpu in cpus.iter() {
            if let (Some(now), Some(then)) = (self.0.get(cpu), earlier.0.get(cpu)) {
                busy += now.0.saturating_sub(then.0);
                all += now.1.saturating_sub(then.1);
            }
        }
        busy as f64 / all.max(1) as f64
    }
}

/// Its name, and its value in an interval.
type Curve = (&'static str, fn(&Metrics) -> f64);

/// What is shown.
#[derive(Default)]
struct View {
    /// Why there is nothing to show, if there is not.
    trouble: Option<String>,
    history: VecDeque<Metrics>,
    times: CpuTimes,
    /// CPUs of each domain as a list, and its load.
    domains: Vec<(String, f64)>,
}

impl View {
    fn add(&mut self, metrics: Metrics, times: CpuTimes) {
        self.trouble = None;
        self.domains = metrics
            .domains
            .split('/')
            .filter_map(|list| Some((list.to_string(), times.load(&self.times, &Cpumask::from_cpulist(list).ok()?))))
            .collect();
        self.times = times;
        self.history.push_back(metrics);
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let [head, upper, lower, foot] =
            Layout::vertical([Constraint::Length(2), Constraint::Fill(1), Constraint::Fill(1), Constraint::Length(1)])
                .areas(frame.area());
        frame.render_widget(Paragraph::new("q: quit").style(Style::new().add_modifier(Modifier::DIM)), foot);
        let (None, Some(last)) = (&self.trouble, self.history.back()) else {
            frame.render_widget(Paragraph::new(self.trouble.as_deref().unwrap_or("asking")), head);
            return;
        };
        frame.render_widget(Paragraph::new(headline(last)), head);
        let [domains, waits] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(2)]).areas(upper);
        self.draw_domains(frame, domains);
        draw_waits(frame, waits, last);
        let learning = last.mode == "learn";
        let [left, middle, right] = Layout::horizontal([Constraint::Fill(1); 3]).areas(lower);
        self.draw_curves(
            frame,
            left,
            "decisions/s",
            &[("all", |m| m.decisions_per_s), ("migrated", |m| m.decisions_per_s * m.migrated_pct / 100.0)],
        );
        if learning {
            self.draw_curves(frame, middle, "reward, ms", &[("reward", |m| m.reward_ms)]);
            self.draw_curves(
                frame,
                right,
                "entropy; trust",
                &[("entropy", |m| m.entropy), ("trust", |m| m.guard_share)],
            );
        } else {
            self.draw_curves(
                frame,
                middle,
                "wait, ms",
                &[("p99", |m| m.wait_p99_us as f64 / 1000.0), ("mean", |m| m.wait_mean_us / 1000.0)],
            );
            self.draw_curves(frame, right, "moves/s", &[("moves", |m| m.migrations_per_s)]);
        }
    }

    fn draw_domains(&self, frame: &mut Frame<'_>, area: Rect) {
        let width = usize::from(area.width.saturating_sub(24)).max(4);
        let lines: Vec<Line<'_>> = self
            .domains
            .iter()
            .map(|(cpus, load)| {
                let full = (load.clamp(0.0, 1.0) * width as f64).round() as usize;
                Line::from(vec![
                    Span::raw(format!("{cpus:>14} ")),
                    Span::styled("█".repeat(full), Style::new().fg(COLOURS[0])),
                    Span::raw(format!("{} {:3.0} %", " ".repeat(width - full), load * 100.0)),
                ])
            })
            .collect();
        frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" CPUs of each domain, busy ")), area);
    }

    /// Curves of the last intervals, newest at the right.
    fn draw_curves(&self, frame: &mut Frame<'_>, area: Rect, title: &str, curves: &[Curve]) {
        let points: Vec<Vec<(f64, f64)>> = curves
            .iter()
            .map(|(_, value)| self.history.iter().enumerate().map(|(i, m)| (i as f64, value(m))).collect())
            .collect();
        let values = || points.iter().flatten().map(|(_, y)| *y).filter(|y| y.is_finite());
        let (low, high) = (values().fold(0.0, f64::min), values().fold(0.0, f64::max));
        let high = if high - low > 1e-9 { high } else { low + 1.0 };
        let sets = curves.iter().zip(&points).zip(COLOURS).map(|(((name, _), points), colour)| {
            Dataset::default()
                .name(*name)
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(Style::new().fg(colour))
                .data(points)
        });
        let chart = Chart::new(sets.collect())
            .block(Block::bordered().title(format!(" {title} ")))
            .x_axis(Axis::default().bounds([0.0, self.history.len().max(2) as f64 - 1.0]))
            .y_axis(Axis::default().bounds([low, high]).labels([number(low), number(high)]));
        frame.render_widget(chart, area);
    }
}

/// With as many digits as matter on an axis.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The numbers of the interval, in two lines.
fn headline(m: &Metrics) -> Vec<Line<'static>> {
    let mut second = vec![Span::raw(format!(
        "{:.0} events/s, 1 in {} logged, {} dropped; {:.0} MiB resident",
        m.events_per_s,
        1u64 << m.sample_shift.min(63),
        m.events_dropped,
        m.resident_bytes as f64 / 1048576.0
    ))];
    if m.mode == "learn" {
        let guard = format!(
            " | generation {}, {} updates, trust {:.0} %, harm {:+.1} %, distrusted {} times",
            m.generation,
            m.updates,
            m.guard_share * 100.0,
            m.guard_harm_pct,
            m.distrusted
        );
        second.push(Span::raw(guard));
    }
    let first = format!(
        ": {:.0} decisions/s, {:.0} % migrate; {:.0} moves/s | waits: mean {}, p99 {}",
        m.decisions_per_s,
        m.migrated_pct,
        m.migrations_per_s,
        time(m.wait_mean_us).trim(),
        time(m.wait_p99_us as f64).trim()
    );
    let name = Span::styled(format!("scx_rl {}", m.mode), Style::new().add_modifier(Modifier::BOLD));
    vec![Line::from(vec![name, Span::raw(first)]), Line::from(second)]
}

/// How many waits of which length there were in the interval, on a scale of logarithms: from the shortest to the longest.
fn draw_waits(frame: &mut Frame<'_>, area: Rect, m: &Metrics) {
    let used = |n: &u64| *n > 0;
    let first = m.wait_hist.iter().position(used).unwrap_or(0);
    let last = m.wait_hist.iter().rposition(used).unwrap_or(0);
    let bars: Vec<Bar<'_>> = (first..=last)
        .map(|i| {
            let n = m.wait_hist.get(i).copied().unwrap_or(0);
            // Rare long waits matter, so the height is that of the logarithm.
            let height = ((n as f64 + 1.0).log2() * 8.0).round() as u64;
            let edge = 2u64 << i.min(32);
            let label = if edge < 1000 { format!("{edge}u") } else { format!("{}m", edge / 1000) };
            Bar::default().value(height).text_value(String::new()).label(label)
        })
        .collect();
    let chart = BarChart::default()
        .block(Block::bordered().title(" runqueue waits, shorter than; height: log of their number "))
        .data(BarGroup::default().bars(&bars))
        .bar_width(4)
        .bar_gap(1)
        .bar_style(Style::new().fg(COLOURS[1]));
    frame.render_widget(chart, area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn screen(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let rows = buffer.content.chunks(usize::from(width));
        rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>() + "\n").collect()
    }

    fn metrics(mode: &str) -> Metrics {
        let mut wait_hist = vec![0; 32];
        (wait_hist[1], wait_hist[9], wait_hist[13]) = (900, 40, 1);
        Metrics {
            mode: mode.into(),
            domains: "0-1/2-3".into(),
            decisions_per_s: 1234.0,
            migrated_pct: 25.0,
            wait_p99_us: 1024,
            guard_share: 0.95,
            reward_ms: -1.5,
            wait_hist,
            ..Default::default()
        }
    }

    const BEFORE: &str = "cpu  9 9 9 9\ncpu0 100 0 0 100 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0\ncpu2 50 0 0 50 0 0 0 0\ncpu3 5 0 0 5 0 0 0 0\n";
    const AFTER: &str =
        "cpu0 150 0 10 100 40 0 0 0 0 0\ncpu1 0 60 0 40 0 0 0 0\ncpu2 50 0 0 150 0 0 0 0\ncpu3 5 0 0 105 0 0 0 0\n";

    #[test]
    fn domains_show_how_busy_their_cpus_were() {
        let mut view = View::default();
        view.add(metrics("frozen"), CpuTimes::parse(BEFORE));
        view.add(metrics("frozen"), CpuTimes::parse(AFTER));
        let loads: Vec<_> = view.domains.iter().map(|(cpus, load)| (cpus.as_str(), (load * 100.0).round())).collect();
        assert_eq!(loads, [("0-1", 60.0), ("2-3", 0.0)]);
        assert_eq!(CpuTimes::parse("intr 5\ncpux 1\n"), CpuTimes::default());
    }

    #[test]
    fn the_screen_has_what_matters_at_any_size() {
        let mut view = View::default();
        assert!(screen(&view, 80, 24).contains("asking"));
        let error = |kind| why(&anyhow::Error::from(std::io::Error::from(kind)));
        assert!(error(ErrorKind::ConnectionRefused).contains("no scx_rl runs here"));
        assert!(error(ErrorKind::PermissionDenied).contains("only root"));
        assert!(why(&anyhow::anyhow!("unknown field")).contains("unknown field"));
        view.add(metrics("learn"), CpuTimes::parse(BEFORE));
        view.add(metrics("learn"), CpuTimes::parse(AFTER));
        let text = screen(&view, 110, 30);
        for words in [
            "scx_rl learn: 1234 decisions/s, 25 % migrate",
            "p99 1.0ms",
            "0-1",
            "60 %",
            "4u",
            "16m",
            "reward, ms",
            "trust 95 %",
            "q: quit",
        ] {
            assert!(text.contains(words), "{words:?} in\n{text}");
        }
        view.add(metrics("frozen"), CpuTimes::default());
        assert!(screen(&view, 110, 30).contains("moves/s") && !screen(&view, 110, 30).contains("reward"));
        for (width, height) in [(1, 1), (20, 5), (300, 100)] {
            screen(&view, width, height);
        }
        view.trouble = Some(error(ErrorKind::NotFound));
        assert!(screen(&view, 80, 24).contains("waiting for one"));
        (0..2 * HISTORY).for_each(|_| view.add(metrics("learn"), CpuTimes::default()));
        assert_eq!(view.history.len(), HISTORY);
    }
}

//! What was measured, as a table for people and as JSON for programs.

use std::{fs, path::Path};

use serde::Serialize;
use serde_json::json;

use crate::measure::{Figure, short};

/// Which side of its bounds a figure should be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    AtLeast,
    AtMost,
}

/// A row's promise.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bounds {
    pub wanted: Wanted,
    pub must: f64,
    pub aim: f64,
}

/// Not less than that.
pub const fn at_least(must: f64, aim: f64) -> Bounds {
    Bounds { wanted: Wanted::AtLeast, must, aim }
}

/// Not more than that.
pub const fn at_most(must: f64, aim: f64) -> Bounds {
    Bounds { wanted: Wanted::AtMost, must, aim }
}

impl Bounds {
    fn holds(&self, value: f64, bound: f64) -> bool {
        match self.wanted {
            Wanted::AtLeast => value >= bound,
            Wanted::AtMost => value <= bound,
        }
    }

    fn verdict(&self, value: f64) -> &'static str {
        match (self.holds(value, self.aim), self.holds(value, self.must)) {
            (true, _) => "aim",
            (false, true) => "must",
            (false, false) => "MISSED",
        }
    }
}

/// One row as measured.
#[derive(Debug, Serialize)]
pub struct Row {
    /// `R1` to `R17` of BENCH.md; `K1`.
    pub id: &'static str,
    pub what: &'static str,
    pub bounds: Bounds,
    pub figure: Figure,
    /// What stands behind the ratio.
    pub detail: String,
}

/// A row that could not be measured.
#[derive(Debug, Serialize)]
pub struct Missing {
    pub id: &'static str,
    pub why: String,
}

/// Everything of a run.
#[derive(Debug, Default)]
pub struct Table {
    pub rows: Vec<Row>,
    pub missing: Vec<Missing>,
}

impl Table {
    /// The same table for both: numbers are ratios unless the row says otherwise.
    pub fn print(&self) {
        println!();
        println!("{:<4} {:<64} {:>24} {:>14} {:<7} behind it", "row", "what", "median (spread)", "must / aim", "reached");
        for row in &self.rows {
            let Figure { median, lowest, highest } = row.figure;
            let sign = if row.bounds.wanted == Wanted::AtLeast { "≥" } else { "≤" };
            println!(
                "{:<4} {:<64} {:>24} {:>14} {:<7} {}",
                row.id,
                row.what,
                format!("{} ({}–{})", short(median), short(lowest), short(highest)),
                format!("{sign} {} / {}", row.bounds.must, row.bounds.aim),
                row.bounds.verdict(median),
                row.detail
            );
        }
        for Missing { id, why } in &self.missing {
            println!("{id:<4} NOT RUN: {why}");
        }
    }

    /// The same for the README.
    fn markdown(&self, machine: &str) -> String {
        let mut text = format!(
            "{machine}\n\n| row | what | median (spread) | must | aim | reached | behind it |\n|---|---|---|---|---|---|---|\n"
        );
        for Row { id, what, bounds, figure, detail } in &self.rows {
            let sign = if bounds.wanted == Wanted::AtLeast { "≥" } else { "≤" };
            let (median, lowest, highest) = (short(figure.median), short(figure.lowest), short(figure.highest));
            let (must, aim, reached) = (bounds.must, bounds.aim, bounds.verdict(figure.median));
            text += &format!(
                "| {id} | {what} | {median} ({lowest}–{highest}) | {sign} {must} | {sign} {aim} | {reached} | {detail} |\n"
            );
        }
        for Missing { id, why } in &self.missing {
            text += &format!("| {id} | not run: {why} | | | | | |\n");
        }
        text
    }

    /// Whether every row that ran reached what it must.
    pub fn passed(&self) -> bool {
        self.rows.iter().all(|row| row.bounds.holds(row.figure.median, row.bounds.must))
    }

    /// Writes the JSON file, and beside it the table in Markdown.
    pub fn save(&self, path: &Path, short: bool, machine: &str) -> anyhow::Result<()> {
        let all = json!({"machine": machine, "short": short, "rows": self.rows, "not_run": self.missing});
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(path.with_extension("md"), self.markdown(machine))?;
        Ok(fs::write(path, serde_json::to_vec_pretty(&all)?)?)
    }
}

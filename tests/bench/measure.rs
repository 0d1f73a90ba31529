//! Two things measured in turn, A B B A A B …, and what their ratio is: a machine that slows down meanwhile slows both.

use serde::Serialize;

/// A figure over the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figure {
    pub median: f64,
    pub lowest: f64,
    pub highest: f64,
}

impl Figure {
    /// Of these.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let median = match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[n / 2],
            n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
        };
        let at = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        Self { median, lowest: at(sorted.first()), highest: at(sorted.last()) }
    }
}

/// Two things and their ratio, round by round.
#[derive(Debug)]
pub struct Compared {
    pub a: Vec<f64>,
    pub b: Vec<f64>,
}

impl Compared {
    /// A over B in each round.
    pub fn ratio(&self) -> Figure {
        let ratios: Vec<f64> = self.a.iter().zip(&self.b).map(|(a, b)| a / b).collect();
        Figure::of(&ratios)
    }

    /// "1234 against 5678 jobs/s".
    pub fn told(&self, unit: &str) -> String {
        format!("{} against {} {unit}", short(Figure::of(&self.a).median), short(Figure::of(&self.b).median))
    }
}

/// Measures in turn, the order turned round in every other round.
pub async fn in_turn(
    rounds: usize,
    mut a: impl AsyncFnMut() -> anyhow::Result<f64>,
    mut b: impl AsyncFnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<Compared> {
    let mut compared = Compared { a: Vec::new(), b: Vec::new() };
    for round in 0..rounds {
        if round % 2 == 0 {
            compared.a.push(a().await?);
            compared.b.push(b().await?);
        } else {
            compared.b.push(b().await?);
            compared.a.push(a().await?);
        }
    }
    Ok(compared)
}

/// Three digits are more than such a figure is worth.
pub fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => format!("{:.1}k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

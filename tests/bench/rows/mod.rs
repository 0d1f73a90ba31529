//! The rows of the benchmark, some to a file. Each group has its own databases and services, started and stopped by itself.

mod footprint;
mod hand_out;
mod jobs;
mod keep_alive;
mod keys;
mod refresh;
mod stampede;

use std::time::Instant;

use crate::{
    measure::short,
    table::{Missing, Row, Table},
    world::World,
};

/// Which rows are asked for; none named: all.
pub struct Asked(pub Vec<String>);

impl Asked {
    /// Whether any of these.
    pub fn any(&self, ids: &[&str]) -> bool {
        self.0.is_empty() || ids.iter().any(|id| self.0.iter().any(|asked| asked.eq_ignore_ascii_case(id)))
    }
}

/// Measures what is asked for. A row that cannot be measured says why, and the others go on.
pub async fn measure(world: &World, asked: &Asked) -> Table {
    let mut table = Table::default();
    // What leaves thousands of closed connections behind, whose ports are taken for a minute, comes last.
    let groups: &[(&[&str], Group)] = &[
        (&["R1"], |world| Box::pin(hand_out::against_hello(world))),
        (&["R2"], |world| Box::pin(hand_out::against_postgres(world))),
        (&["R3", "R4", "R5"], |world| Box::pin(jobs::against_openbao(world))),
        (&["R9", "R10"], |world| Box::pin(stampede::one_token(world))),
        (&["R11"], |world| Box::pin(stampede::many_tokens(world))),
        (&["R12"], |world| Box::pin(footprint::memory(world))),
        (&["R13"], |world| Box::pin(footprint::start_up(world))),
        (&["R14"], |world| Box::pin(keep_alive::scan(world))),
        (&["R16"], |world| Box::pin(hand_out::closing_batches(world))),
        (&["R17"], |world| Box::pin(hand_out::row_level_security(world))),
        (&["R15"], |world| Box::pin(keep_alive::all_at_once(world))),
        (&["R6", "R7"], |world| Box::pin(refresh::added_latency(world))),
        (&["R8"], |world| Box::pin(refresh::throughput(world))),
        (&["K1"], |world| Box::pin(keys::changed_under_load(world))),
    ];
    for (ids, group) in groups {
        if !asked.any(ids) {
            continue;
        }
        eprint!("measuring {} … ", ids.join(", "));
        let began = Instant::now();
        let measured = group(world).await;
        eprintln!("{} s", short(began.elapsed().as_secs_f64()));
        match measured {
            Ok(measured) => {
                let wanted = measured.rows.into_iter().filter(|row| asked.any(&[row.id]));
                table.rows.extend(wanted);
                table.missing.extend(measured.missing);
            }
            Err(why) => table.missing.extend(ids.iter().map(|id| Missing { id, why: format!("{why:#}") })),
        }
    }
    table.rows.sort_by_key(|row| (row.id.starts_with('K'), row.id[1..].parse::<u32>().ok()));
    table
}

type Group = for<'a> fn(&'a World) -> std::pin::Pin<Box<dyn Future<Output = anyhow::Result<Measured>> + 'a>>;

/// What a group came to.
#[derive(Default)]
pub struct Measured {
    pub rows: Vec<Row>,
    pub missing: Vec<Missing>,
}

impl From<Row> for Measured {
    fn from(row: Row) -> Self {
        Self { rows: vec![row], missing: Vec::new() }
    }
}

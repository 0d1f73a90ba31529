//! `GET /metrics`, on the operators' address only.

use axum::{Extension, extract::State, http::header, response::IntoResponse};
use metrics::gauge;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::ApiState;

/// The process' recorder.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Installs the process' recorder, once.
    ///
    /// # Errors
    /// There is one already.
    pub fn install() -> anyhow::Result<Self> {
        let handle = PrometheusBuilder::new().install_recorder()?;
        metrics::describe_counter!(
            "token_broker_jfrog_calls_total",
            "Calls to JFrog that make a pair, by kind (rotate is a refresh) and outcome."
        );
        metrics::describe_counter!(
            "token_broker_hand_outs_total",
            "Access tokens handed out; refreshed: the caller waited for a rotation."
        );
        metrics::describe_counter!("token_broker_journal_replays_total", "Pairs committed from the journal.");
        metrics::describe_counter!("token_broker_problems_total", "Errors answered, by problem.");
        metrics::describe_counter!("token_broker_issuer_fetches_total", "Fetches of an issuer's keys, by issuer and outcome.");
        metrics::describe_counter!(
            "token_broker_audit_batches_total",
            "Looks for audit events to be closed into a batch, by outcome; not_posted: a checkpoint was not taken."
        );
        metrics::describe_gauge!("token_broker_journal_backlog", "Entries of this replica's journal that wait for Postgres.");
        metrics::describe_gauge!("token_broker_chains", "Chains by state.");
        metrics::describe_gauge!("token_broker_data_keys", "Data keys: those that seal, and old ones.");
        metrics::describe_gauge!("token_broker_reseal_rows", "Rows of teams with old data keys: sealed anew, or left to be.");
        metrics::describe_gauge!(
            "token_broker_rewrap_keys_left",
            "Data keys that are still to be wrapped by another master key."
        );
        metrics::describe_counter!("token_broker_resealed_rows_total", "Rows that this replica sealed with a new data key.");
        metrics::describe_gauge!(
            "token_broker_soonest_expiry_seconds",
            "Until the first access token of a chain in this state expires."
        );
        Ok(Self(handle))
    }
}

/// Counters of this replica; gauges read when asked.
pub(super) async fn metrics(State(state): State<ApiState>, Extension(recorder): Extension<Metrics>) -> impl IntoResponse {
    gauge!("token_broker_journal_backlog").set(f64::from(u32::try_from(state.broker.journal_backlog()).unwrap_or(u32::MAX)));
    // While Postgres is away the counters are needed most: they are shown without the chains.
    if let Ok(chains) = state.broker.chain_gauges().await {
        for known in ["active", "uncertain", "lost"] {
            let found = chains.iter().find(|(state, ..)| state == known);
            gauge!("token_broker_chains", "state" => known).set(found.map_or(0.0, |(_, count, _)| *count as f64));
            if let Some(seconds) = found.and_then(|(_, _, seconds)| *seconds) {
                gauge!("token_broker_soonest_expiry_seconds", "state" => known).set(seconds);
            }
        }
    }
    if let Ok((rotation, rewrap_left)) = state.broker.key_gauges().await {
        gauge!("token_broker_data_keys", "state" => "current").set((rotation.keys - rotation.old_keys) as f64);
        gauge!("token_broker_data_keys", "state" => "old").set(rotation.old_keys as f64);
        gauge!("token_broker_reseal_rows", "state" => "done").set((rotation.rows - rotation.rows_left) as f64);
        gauge!("token_broker_reseal_rows", "state" => "left").set(rotation.rows_left as f64);
        gauge!("token_broker_rewrap_keys_left").set(rewrap_left as f64);
    }
    recorder.0.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], recorder.0.render())
}

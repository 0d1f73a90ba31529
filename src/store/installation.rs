//! Which installation this is, and the canaries of its master keys.

use uuid::Uuid;

use super::{Result, Store};
use crate::secret::Sealed;

impl Store {
    /// The installation's id.
    ///
    /// # Errors
    /// Postgres.
    pub async fn installation_id(&self) -> Result<Uuid> {
        Ok(sqlx::query_scalar!("select id from installation").fetch_one(&self.pool).await?)
    }

    /// The canaries of all master keys ever used.
    ///
    /// # Errors
    /// Postgres.
    pub async fn canaries(&self) -> Result<Vec<(String, Sealed)>> {
        let rows = sqlx::query!("select id, canary from master_keys").fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(|row| (row.id, Sealed::from_bytes(row.canary))).collect())
    }

    /// Keeps the canary of a master key's first use.
    ///
    /// # Errors
    /// Postgres.
    pub async fn add_canary(&self, id: &str, canary: &Sealed) -> Result<()> {
        sqlx::query!(
            "insert into master_keys (id, canary) values ($1, $2) on conflict on constraint master_keys_pkey do nothing",
            id,
            canary.as_bytes()
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Which master keys some data key needs.
    ///
    /// # Errors
    /// Postgres.
    pub async fn master_keys_in_use(&self) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar!(r#"select id as "id!" from master_keys_in_use() as used(id)"#).fetch_all(&self.pool).await?)
    }

    /// Chains by state over all teams, with the seconds until the first of them expires.
    ///
    /// # Errors
    /// Postgres.
    pub async fn chain_gauges(&self) -> Result<Vec<(String, i64, Option<f64>)>> {
        let rows = sqlx::query!(r#"select state as "state!", chains as "chains!", soonest_expiry_seconds from chain_gauges()"#)
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.into_iter().map(|row| (row.state, row.chains, row.soonest_expiry_seconds)).collect())
    }
}

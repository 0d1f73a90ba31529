//! Which installation this is.

use uuid::Uuid;

use super::{Result, Store};

/// Which installation a database belongs to.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Stands in the markers at JFrog.
    pub id: Uuid,
    /// Ids of which it was a copy, and of journals that were adopted with it.
    pub previous_ids: Vec<Uuid>,
    /// The service ran last on another server or another database: this one is a copy, or was restored.
    pub is_copy: bool,
    /// It has not run yet.
    pub is_new: bool,
}

impl Store {
    /// Which installation this is.
    ///
    /// # Errors
    /// Postgres.
    pub async fn installation(&self) -> Result<Installation> {
        Ok(sqlx::query_as!(
            Installation,
            r#"select id, previous_ids, database_identity is null as "is_new!",
                      database_identity is not null and database_identity is distinct from database_identity() as "is_copy!"
               from installation"#
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// Takes down which database it runs on, at its first start.
    ///
    /// # Errors
    /// Postgres.
    pub async fn settle_down(&self) -> Result<()> {
        sqlx::query!("update installation set database_identity = database_identity() where database_identity is null")
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Makes the copy `of` an installation of its own, with a new id: its markers are no longer the original's. Nothing happens
    /// where another replica has done so already.
    ///
    /// # Errors
    /// Postgres.
    pub async fn adopt(&self, of: Uuid, journal: Option<Uuid>) -> Result<()> {
        sqlx::query!(
            "update installation set id = gen_random_uuid(), database_identity = database_identity(),
                    previous_ids = previous_ids || id || array_remove(array[$2::uuid], null) where id = $1",
            of,
            journal
        )
        .execute(&self.pool)
        .await?;
        Ok(())
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

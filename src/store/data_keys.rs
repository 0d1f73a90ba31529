//! Wrapped data keys.

use uuid::Uuid;

use super::{Result, Store};
use crate::secret::{Sealed, Wrapped};

/// A wrapped data key.
#[derive(Clone, Debug)]
pub struct DataKeyRow {
    /// Stands in every value it sealed.
    pub id: Uuid,
    /// The key, wrapped.
    pub wrapped: Wrapped,
}

impl Store {
    /// The team's data key `id`, or its current one for `None`.
    ///
    /// # Errors
    /// Postgres.
    pub async fn data_key(&self, team: Uuid, id: Option<Uuid>) -> Result<Option<DataKeyRow>> {
        let row = sqlx::query!(
            "select id, master_key_id, wrapped from data_keys
             where (select in_team($1)) and team_id = $1 and (id = $2 or ($2 is null and current))",
            team,
            id
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| DataKeyRow {
            id: row.id,
            wrapped: Wrapped { master_key_id: row.master_key_id, sealed: Sealed::from_bytes(row.wrapped) },
        }))
    }
}

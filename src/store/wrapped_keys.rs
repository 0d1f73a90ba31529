//! Keys that a master key wraps, whichever table they are in.

use uuid::Uuid;

use super::{Result, Store};
use crate::secret::{Sealed, Wrapped};

/// A table of wrapped keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Holder {
    /// A team's data keys.
    DataKeys,
    /// Keys of the audit's chain: the platform's.
    AuditKeys,
}

/// A wrapped key.
#[derive(Clone, Debug)]
pub struct WrappedKey {
    /// Which table it is in.
    pub holder: Holder,
    /// Its row, and the key's id.
    pub id: Uuid,
    /// Whose; the wrapped bytes open for this owner alone.
    pub owner: Uuid,
    /// The key, wrapped.
    pub wrapped: Wrapped,
}

/// How many keys of a table a master key wraps.
#[derive(Clone, Debug)]
pub struct WrappedCount {
    /// The master key.
    pub master_key_id: String,
    /// So many.
    pub keys: i64,
}

impl Store {
    /// A page of wrapped keys behind `after`, by id, without those that the master key `not_by` wraps.
    ///
    /// # Errors
    /// Postgres.
    pub async fn wrapped_keys(&self, not_by: &str, after: Uuid, limit: i32) -> Result<Vec<WrappedKey>> {
        let rows = sqlx::query!(
            r#"select holder as "holder!: Holder", id as "id!", team_id as "owner!", master_key_id as "master_key_id!", wrapped as "wrapped!"
               from wrapped_keys($1, $2, $3)"#,
            not_by,
            after,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        let keys = rows.into_iter().map(|row| WrappedKey {
            holder: row.holder,
            id: row.id,
            owner: row.owner,
            wrapped: Wrapped { master_key_id: row.master_key_id, sealed: Sealed::from_bytes(row.wrapped) },
        });
        Ok(keys.collect())
    }

    /// How many keys each master key wraps.
    ///
    /// # Errors
    /// Postgres.
    pub async fn wrapped_key_counts(&self) -> Result<Vec<WrappedCount>> {
        Ok(sqlx::query_as!(
            WrappedCount,
            r#"select master_key_id as "master_key_id!", sum(keys)::bigint as "keys!" from wrapped_key_counts() group by master_key_id"#
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Keeps a key as it is wrapped now, if it still is what was read. `false`: it is not.
    ///
    /// # Errors
    /// `InUse("wrapped_by_usable_key")` when that master key was retired, or Postgres.
    pub async fn rewrap_key(&self, read: &WrappedKey, new: &Wrapped) -> Result<bool> {
        let (was, sealed, by) = (read.wrapped.sealed.as_bytes(), new.sealed.as_bytes(), &new.master_key_id);
        let done = match read.holder {
            Holder::DataKeys => sqlx::query!(
                "update data_keys set master_key_id = $4, wrapped = $5 where (select in_team($1)) and id = $2 and wrapped = $3",
                read.owner,
                read.id,
                was,
                by,
                sealed
            ),
            Holder::AuditKeys => sqlx::query!(
                "update audit_keys set master_key_id = $4, wrapped = $5 where (select in_team($1)) and id = $2 and wrapped = $3",
                read.owner,
                read.id,
                was,
                by,
                sealed
            ),
        };
        Ok(done.execute(&self.pool).await?.rows_affected() == 1)
    }
}

//! Rows that hold something sealed, written again under another data key. Each is compared and swapped: what was committed meanwhile
//! stays, and no generation is touched.

use uuid::Uuid;

use super::{Result, Store};
use crate::secret::Sealed;

/// What a chain holds sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedChain {
    /// Its row.
    pub id: Uuid,
    /// In the places of the three.
    pub generation: i64,
    /// Of the pair.
    pub access_token: Option<Sealed>,
    /// Of the pair.
    pub refresh_token: Option<Sealed>,
    /// Of the pair.
    pub reference_token: Option<Sealed>,
    /// Of the pair that was replaced, and its generation.
    pub replaced: Option<(i64, Sealed)>,
}

/// A row with one sealed value.
#[derive(Clone, Debug)]
pub struct SealedValue {
    /// Its row.
    pub id: Uuid,
    /// The value.
    pub sealed: Sealed,
}

/// Which table has one sealed value a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SingleValued {
    /// `tokens.identity_token`, of a registration that is being made.
    Tokens,
    /// `webhooks.target`.
    Webhooks,
}

impl Store {
    /// Chains of the team behind `after` that need an old data key, by id.
    ///
    /// # Errors
    /// Postgres.
    pub async fn chains_to_reseal(&self, team: Uuid, after: Uuid, limit: i64) -> Result<Vec<SealedChain>> {
        let rows = sqlx::query!(
            "with old as (select array_agg(id) as ids from data_keys where (select in_team($1)) and team_id = $1 and not current)
             select c.id, c.generation, c.access_token, c.refresh_token, c.reference_token, c.replaced_access_token, c.replaced_generation
             from chains c, old
             where (select in_team($1)) and c.team_id = $1 and c.id > $2
               and array[sealed_by(c.access_token), sealed_by(c.refresh_token), sealed_by(c.reference_token),
                         sealed_by(c.replaced_access_token)] && old.ids
             order by c.id limit $3",
            team,
            after,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        let chains = rows.into_iter().map(|row| SealedChain {
            id: row.id,
            generation: row.generation,
            access_token: row.access_token.map(Sealed::from_bytes),
            refresh_token: row.refresh_token.map(Sealed::from_bytes),
            reference_token: row.reference_token.map(Sealed::from_bytes),
            replaced: row.replaced_generation.zip(row.replaced_access_token.map(Sealed::from_bytes)),
        });
        Ok(chains.collect())
    }

    /// Writes a chain's values as they are sealed now, if they still are what was read. `false`: they are not.
    ///
    /// # Errors
    /// Postgres.
    pub async fn reseal_chain(&self, team: Uuid, read: &SealedChain, new: &SealedChain) -> Result<bool> {
        let bytes = |sealed: &Option<Sealed>| sealed.as_ref().map(|sealed| sealed.as_bytes().to_vec());
        let replaced = |chain: &SealedChain| chain.replaced.as_ref().map(|(_, sealed)| sealed.as_bytes().to_vec());
        let done = sqlx::query!(
            "update chains set access_token = $4, refresh_token = $5, reference_token = $6, replaced_access_token = $7
             where (select in_team($1)) and id = $2 and generation = $3
               and access_token is not distinct from $8 and refresh_token is not distinct from $9
               and reference_token is not distinct from $10 and replaced_access_token is not distinct from $11",
            team,
            read.id,
            read.generation,
            bytes(&new.access_token),
            bytes(&new.refresh_token),
            bytes(&new.reference_token),
            replaced(new),
            bytes(&read.access_token),
            bytes(&read.refresh_token),
            bytes(&read.reference_token),
            replaced(read)
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The same of rows with one value.
    ///
    /// # Errors
    /// Postgres.
    pub async fn values_to_reseal(&self, of: SingleValued, team: Uuid, after: Uuid, limit: i64) -> Result<Vec<SealedValue>> {
        struct Row {
            id: Uuid,
            sealed: Vec<u8>,
        }
        let rows = match of {
            SingleValued::Tokens => {
                sqlx::query_as!(
                    Row,
                    r#"select t.id, t.identity_token as "sealed!" from tokens t
                       where (select in_team($1)) and t.team_id = $1 and t.id > $2 and sealed_by(t.identity_token) in
                             (select d.id from data_keys d where (select in_team($1)) and d.team_id = $1 and not d.current)
                       order by t.id limit $3"#,
                    team,
                    after,
                    limit
                )
                .fetch_all(&self.pool)
                .await?
            }
            SingleValued::Webhooks => {
                sqlx::query_as!(
                    Row,
                    "select w.id, w.target as sealed from webhooks w
                     where (select in_team($1)) and w.team_id = $1 and w.id > $2 and sealed_by(w.target) in
                           (select d.id from data_keys d where (select in_team($1)) and d.team_id = $1 and not d.current)
                     order by w.id limit $3",
                    team,
                    after,
                    limit
                )
                .fetch_all(&self.pool)
                .await?
            }
        };
        Ok(rows.into_iter().map(|row| SealedValue { id: row.id, sealed: Sealed::from_bytes(row.sealed) }).collect())
    }

    /// Writes a value as it is sealed now, if it still is what was read. `false`: it is not.
    ///
    /// # Errors
    /// Postgres.
    pub async fn reseal_value(&self, of: SingleValued, team: Uuid, read: &SealedValue, new: &Sealed) -> Result<bool> {
        let (read, id, new) = (read.sealed.as_bytes(), read.id, new.as_bytes());
        let done = match of {
            SingleValued::Tokens => {
                let swap = sqlx::query!(
                    "update tokens set identity_token = $4 where (select in_team($1)) and id = $2 and identity_token = $3",
                    team,
                    id,
                    read,
                    new
                );
                swap.execute(&self.pool).await?
            }
            SingleValued::Webhooks => {
                let swap = sqlx::query!(
                    "update webhooks set target = $4 where (select in_team($1)) and id = $2 and target = $3",
                    team,
                    id,
                    read,
                    new
                );
                swap.execute(&self.pool).await?
            }
        };
        Ok(done.rows_affected() == 1)
    }
}

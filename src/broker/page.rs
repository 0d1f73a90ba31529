//! Pages of what a caller may see: rows it may not see make a page no shorter.

use super::BrokerError;
use crate::store::StoreError;

/// What is read at once where rows cannot be seen: small pages of few visible rows would be a query for each row.
const AT_ONCE: i64 = 1_000;

/// Reads pages by name, after `after`, until `limit` rows are visible or there are no more.
pub(super) async fn visible<T, F: Future<Output = Result<Vec<T>, StoreError>>>(
    limit: i64,
    after: &str,
    read: impl Fn(String, i64) -> F,
    name: impl Fn(&T) -> &String,
    may_see: impl Fn(&T) -> bool,
) -> Result<Vec<T>, BrokerError> {
    let full = |count: usize, size: i64| i64::try_from(count).is_ok_and(|count| count >= size);
    let (mut shown, mut after, mut size) = (Vec::new(), after.to_owned(), limit);
    loop {
        let page = read(after, size).await?;
        let last = page.last().filter(|_| full(page.len(), size)).map(|row| name(row).clone());
        shown.extend(page.into_iter().filter(|row| may_see(row)));
        match last.filter(|_| !full(shown.len(), limit)) {
            Some(last) => (after, size) = (last, AT_ONCE),
            None => break,
        }
    }
    shown.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_cannot_be_seen_costs_few_queries_however_small_the_page() {
        let rows: Vec<String> = (0..2_500).map(|number| format!("{number:04}")).collect();
        for (limit, seen, queries) in [(1, vec!["2400"], 4), (2, vec!["2400", "2499"], 4), (200, vec!["2400", "2499"], 4)] {
            let read = AtomicUsize::new(0);
            let page = |after: String, size: i64| {
                read.fetch_add(1, Ordering::Relaxed);
                let size = usize::try_from(size).expect("a size");
                let page: Vec<String> = rows.iter().filter(|row| **row > after).take(size).cloned().collect();
                async move { Ok(page) }
            };
            let shown = visible(limit, "", page, |row| row, |row| row == "2400" || row == "2499").await.expect("rows");
            assert_eq!((shown, read.into_inner() <= queries), (seen.iter().map(|row| (*row).to_owned()).collect(), true));
        }
    }
}

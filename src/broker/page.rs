//! Pages of what a caller may see: rows it may not see make a page no shorter.

use super::BrokerError;
use crate::store::StoreError;

/// Reads pages by name, after `after`, until `limit` rows are visible or there are no more.
pub(super) async fn visible<T, F: Future<Output = Result<Vec<T>, StoreError>>>(
    limit: i64,
    after: &str,
    read: impl Fn(String) -> F,
    name: impl Fn(&T) -> &String,
    may_see: impl Fn(&T) -> bool,
) -> Result<Vec<T>, BrokerError> {
    let full = |count: usize| i64::try_from(count).is_ok_and(|count| count >= limit);
    let (mut shown, mut after) = (Vec::new(), after.to_owned());
    loop {
        let page = read(after).await?;
        let last = page.last().filter(|_| full(page.len())).map(|row| name(row).clone());
        shown.extend(page.into_iter().filter(|row| may_see(row)));
        match last.filter(|_| !full(shown.len())) {
            Some(last) => after = last,
            None => break,
        }
    }
    shown.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(shown)
}

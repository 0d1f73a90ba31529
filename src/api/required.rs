//! What every answer holds: a field without a value is `null`, never absent (only a problem leaves its `errors` out).

use std::collections::{BTreeMap, BTreeSet};

use utoipa::openapi::{RefOr, Response, Schema, schema::ArrayItems};

/// Marks every field of a good answer as required: the derived document takes what may be `null` for what may be absent. What stands
/// elsewhere is put in `named`, for [`mark_named`].
pub(super) fn mark(response: &mut Response, named: &mut Vec<String>) {
    for (kind, content) in &mut response.content {
        if let (false, RefOr::T(content)) = (kind == "application/problem+json", content) {
            content.schema.iter_mut().for_each(|schema| require(schema, named));
        }
    }
}

/// The same in these schemas, and in those that they name.
pub(super) fn mark_named(schemas: &mut BTreeMap<String, RefOr<Schema>>, mut named: Vec<String>) {
    let mut marked = BTreeSet::new();
    while let Some(name) = named.pop() {
        if let Some(schema) = schemas.get_mut(&name).filter(|_| marked.insert(name.clone())) {
            require(schema, &mut named);
        }
    }
}

/// In this schema and whatever is in it; the names of those that stand elsewhere are put in `named`.
fn require(schema: &mut RefOr<Schema>, named: &mut Vec<String>) {
    match schema {
        RefOr::Ref(elsewhere) => named.extend(elsewhere.ref_location.rsplit('/').next().map(str::to_owned)),
        RefOr::T(Schema::Object(object)) => {
            object.required = object.properties.keys().cloned().collect();
            object.properties.values_mut().for_each(|field| require(field, named));
        }
        RefOr::T(Schema::Array(array)) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                require(items, named);
            }
        }
        RefOr::T(Schema::OneOf(parts)) => parts.items.iter_mut().for_each(|part| require(part, named)),
        RefOr::T(Schema::AllOf(parts)) => parts.items.iter_mut().for_each(|part| require(part, named)),
        RefOr::T(Schema::AnyOf(parts)) => parts.items.iter_mut().for_each(|part| require(part, named)),
        RefOr::T(_) => {}
    }
}

//! What every answer holds: a field without a value is `null`, never absent (only a problem leaves its `errors` out).

use std::collections::BTreeSet;

use utoipa::openapi::{OpenApi, RefOr, Schema, schema::ArrayItems};

/// Marks every field of every good answer as required: the derived document takes what may be `null` for what may be absent.
pub(super) fn mark(document: &mut OpenApi) {
    let mut open = Vec::new();
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            for response in operation.responses.responses.values_mut() {
                let RefOr::T(response) = response else { continue };
                for (kind, content) in &mut response.content {
                    if let (false, RefOr::T(content)) = (kind == "application/problem+json", content) {
                        content.schema.iter_mut().for_each(|schema| require(schema, &mut open));
                    }
                }
            }
        }
    }
    let Some(components) = &mut document.components else { return };
    let mut marked = BTreeSet::new();
    while let Some(name) = open.pop() {
        if let Some(schema) = components.schemas.get_mut(&name).filter(|_| marked.insert(name.clone())) {
            require(schema, &mut open);
        }
    }
}

/// In this schema and whatever is in it; the names of those that stand elsewhere are put in `open`.
fn require(schema: &mut RefOr<Schema>, open: &mut Vec<String>) {
    match schema {
        RefOr::Ref(named) => open.extend(named.ref_location.rsplit('/').next().map(str::to_owned)),
        RefOr::T(Schema::Object(object)) => {
            object.required = object.properties.keys().cloned().collect();
            object.properties.values_mut().for_each(|field| require(field, open));
        }
        RefOr::T(Schema::Array(array)) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                require(items, open);
            }
        }
        RefOr::T(Schema::OneOf(parts)) => parts.items.iter_mut().for_each(|part| require(part, open)),
        RefOr::T(Schema::AllOf(parts)) => parts.items.iter_mut().for_each(|part| require(part, open)),
        RefOr::T(Schema::AnyOf(parts)) => parts.items.iter_mut().for_each(|part| require(part, open)),
        RefOr::T(_) => {}
    }
}

//! The OpenAPI document and its page. What every operation can answer is said once, here.

use std::sync::LazyLock;

use axum::{Router, body::Bytes, http::header, routing::get};
use utoipa::{
    OpenApi, ToSchema,
    openapi::{
        Content, HeaderBuilder, Object, Ref, RefOr, Response, ResponseBuilder, Schema, Type,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{ApiState, examples, problem::ProblemBody, required};

pub(super) const TOKENS: &str = "tokens";
pub(super) const TEAMS: &str = "teams";
pub(super) const AUDIT: &str = "audit";
pub(super) const PLATFORM: &str = "platform";
pub(super) const KEYS: &str = "encryption keys";
pub(super) const SERVICE: &str = "service";

const DESCRIPTION: &str =
    "Holds JFrog refresh tokens so that no pipeline has to. A CI job calls `POST /tokens/{name}/refresh` and is handed \
an access token; the refresh token behind it never leaves this service.

Click **Authorize** and paste an API key (`tbk_…`) to try the calls from this page.

Every error is `application/problem+json` (RFC 9457); its `request_id` leads an admin to the audit row that says exactly why.";

#[derive(OpenApi)]
#[openapi(
    info(title = "Token broker", description = DESCRIPTION, license(name = "Apache-2.0", identifier = "Apache-2.0")),
    tags((name = TOKENS, description = "Registrations, and the refresh that CI jobs call."),
         (name = TEAMS, description = "Teams and their API keys."),
         (name = AUDIT, description = "Who did what, and why something was refused."),
         (name = PLATFORM, description = "Keys of platform admins."),
         (name = KEYS, description = "Master keys and data keys: what needs which, and changing them."),
         (name = SERVICE, description = "Who am I, and is the service well.")),
    components(schemas(ProblemBody<'static>)))]
struct Document;

/// The document without its paths, which come with the routes.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key (`tbk_…`), a session (`tbs_…`), or the JWT of a CI job."))
        .build();
    document.components.get_or_insert_default().add_security_scheme("bearer", SecurityScheme::Http(bearer));
    document
}

/// The document with what every operation can answer besides what it says itself.
pub(super) fn completed(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    // Settings are a part of two bodies: to a validator, the rest of the body would be unknown to that part.
    let schemas = document.components.as_mut().map(|components| &mut components.schemas);
    if let Some(RefOr::T(Schema::Object(settings))) = schemas.and_then(|schemas| schemas.get_mut("Settings")) {
        settings.additional_properties = None;
    }
    let mut named = Vec::new();
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            complete(operation);
            for (status, response) in &mut operation.responses.responses {
                if let RefOr::T(response) = response {
                    examples::add(status, response);
                    add_headers(status, response);
                    required::mark(response, &mut named);
                }
            }
        }
    }
    if let Some(components) = &mut document.components {
        required::mark_named(&mut components.schemas, named);
    }
    document
}

/// What `/openapi.json` answers; put together when it is first asked for, which is seldom.
static JSON: LazyLock<Bytes> =
    LazyLock::new(|| serde_json::to_vec(&completed(super::routes().into_openapi())).unwrap_or_default().into());

/// The document as `token-broker openapi` prints it and `openapi/openapi.json` keeps it.
///
/// # Errors
/// It cannot be written as JSON.
pub fn openapi_json() -> anyhow::Result<String> {
    let document = completed(super::routes().into_openapi());
    Ok(document.to_pretty_json()? + "\n")
}

/// `/docs` and `/openapi.json`, from the binary. All are sent the same bytes: who asks and reads no answer costs no copy of them.
pub(super) fn routes() -> Router<ApiState> {
    let answer = async || ([(header::CONTENT_TYPE, "application/json")], Bytes::clone(&JSON));
    let config = Config::new(["/openapi.json"]).try_it_out_enabled(true).display_request_duration(true);
    Router::new().route("/openapi.json", get(answer)).merge(SwaggerUi::new("/docs").config(config.use_base_layout()))
}

fn complete(operation: &mut Operation) {
    let mut add = |status: &str, description: &str| {
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(problem(description)));
    };
    add("500", "`internal`.");
    if operation.security.as_ref().is_none_or(|needs| needs.iter().all(|need| need == &Default::default())) {
        return;
    }
    add(
        "503",
        "`database-unavailable`, `jfrog-unavailable`, `issuer-unavailable`, `key-service-unavailable`, `journal-unavailable`, `frozen` \
         or `overloaded`, with `Retry-After`.",
    );
    add("400", "`invalid-request` (malformed) or `team-required`.");
    add("401", "`unauthenticated`.");
    add("403", "`forbidden`: the role may not do this.");
    add("404", "`not-found`: there is no such thing, or none that the credential may see.");
    add("422", "`invalid-request`: names each field.");
    add("429", "`rate-limited`, with `Retry-After`.");
    if operation.request_body.is_some() {
        add("408", "`invalid-request`: the body took too long.");
        add("413", "`too-large`: a body has at most 64 KiB.");
        add("415", "`unsupported-media-type`.");
    }
}

fn add_headers(status: &str, response: &mut Response) {
    let (name, description) = match status {
        "401" => ("WWW-Authenticate", "`Bearer`."),
        "429" | "503" => ("Retry-After", "Seconds."),
        _ => return,
    };
    let header = HeaderBuilder::new().schema(Some(Object::with_type(Type::String))).description(Some(description)).build();
    response.headers.insert(name.to_owned(), RefOr::T(header));
}

fn problem(description: &str) -> Response {
    let schema = Ref::from_schema_name(ProblemBody::name());
    ResponseBuilder::new().description(description).content("application/problem+json", Content::new(Some(schema))).build()
}

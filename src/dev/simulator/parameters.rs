//! The parameters of POST tokens, from a form or from JSON.

use super::answers::Answer;
use serde_json::{Map, Value};

const FORM: &str = "application/x-www-form-urlencoded";

/// The body as sent: names and values, no limits checked yet.
#[derive(Debug)]
pub(super) struct Fields {
    values: Map<String, Value>,
    /// A form ignores `force_revocable`.
    form: bool,
}

/// What was asked for, within the limits.
pub(super) struct Parameters {
    pub(super) username: Option<String>,
    pub(super) scope: Option<String>,
    pub(super) audience: Option<String>,
    pub(super) description: Option<String>,
    pub(super) refresh_token: Option<String>,
    /// Seconds, 0 = never.
    pub(super) expires_in: Option<u64>,
    pub(super) refreshable: bool,
    pub(super) include_reference_token: bool,
    pub(super) force_revocable: bool,
}

impl Parameters {
    /// The same without what the server ignores.
    pub(super) fn without(mut self, ignored: &[String]) -> Self {
        for name in ignored {
            match name.as_str() {
                "expires_in" => self.expires_in = None,
                "scope" => self.scope = None,
                "audience" => self.audience = None,
                "force_revocable" => self.force_revocable = false,
                _ => {}
            }
        }
        self
    }
}

/// Whether a Content-Type is a form's.
pub(super) fn is_form(content_type: Option<&str>) -> bool {
    content_type.is_some_and(|t| t.starts_with(FORM))
}

impl Fields {
    pub(super) fn read(content_type: Option<&str>, body: &[u8]) -> Result<Self, Answer> {
        let unreadable = || Answer::bad_request("Failed to read the request");
        let form = is_form(content_type);
        let json = content_type.is_some_and(|t| t.starts_with("application/json"));
        let values = if form {
            let text = str::from_utf8(body).map_err(|_| unreadable())?;
            let values = pairs(text);
            values.map(|(k, v)| (k, Value::String(v))).collect()
        } else if json {
            serde_json::from_slice(body).map_err(|_| unreadable())?
        } else if body.is_empty() {
            Map::new()
        } else {
            return Err(Answer::flat(415, "UNSUPPORTED_MEDIA_TYPE", "Unsupported Media Type"));
        };
        Ok(Self { values, form })
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.values.get(name)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|t| t.eq_ignore_ascii_case("true"))
    }

    fn text_up_to(&self, name: &str, limit: usize) -> Result<Option<String>, Answer> {
        let text = self.text(name).filter(|text| !text.is_empty());
        match text {
            Some(text) if text.chars().count() > limit => {
                Err(Answer::bad_request(&format!("Parameter '{name}' is longer than {limit} characters")))
            }
            text => Ok(text),
        }
    }

    pub(super) fn parse(&self) -> Result<Parameters, Answer> {
        if let Some(key) = self.text_up_to("project_key", 32)?
            && key.chars().count() < 2
        {
            return Err(Answer::bad_request("Parameter 'project_key' is too short"));
        }
        let expires_in = match self.text("expires_in").filter(|t| !t.is_empty()) {
            None => None,
            Some(text) => {
                Some(text.parse().map_err(|_| Answer::bad_request("Parameter 'expires_in' is not a number of seconds"))?)
            }
        };
        Ok(Parameters {
            username: self.text_up_to("username", 255)?,
            scope: self.text_up_to("scope", 500)?,
            audience: self.text_up_to("audience", 255)?,
            description: self.text_up_to("description", 1024)?,
            refresh_token: self.text("refresh_token"),
            expires_in,
            refreshable: self.flag("refreshable"),
            include_reference_token: self.flag("include_reference_token"),
            force_revocable: !self.form && self.flag("force_revocable"),
        })
    }
}

/// The decoded pairs of a form or a query.
pub(super) fn pairs(encoded: &str) -> impl Iterator<Item = (String, String)> {
    let mut url = reqwest::Url::parse("http://form/").expect("a constant address");
    url.set_query(Some(encoded));
    let pairs: Vec<_> = url.query_pairs().into_owned().collect();
    pairs.into_iter()
}

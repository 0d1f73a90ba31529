//! What every refusal must be, whatever was refused.

use super::Answer;

impl Answer {
    /// Fails the test unless this is a problem of this status and kind, whole in every part.
    #[track_caller]
    pub fn refused(self, status: u16, slug: &str) -> Self {
        assert_eq!((self.status, self.header("content-type")), (status, "application/problem+json"), "{}", self.text);
        assert_eq!(self.json["type"], format!("/problems/{slug}"), "{}", self.text);
        assert_eq!(self.json["status"], status, "{}", self.text);
        for word in ["title", "detail"] {
            assert!(self.json[word].as_str().is_some_and(|text| !text.is_empty()), "no {word}: {}", self.text);
        }
        assert_eq!(self.json["request_id"], self.header("x-request-id"));
        assert_eq!((self.header("cache-control"), self.header("x-content-type-options")), ("no-store", "nosniff"));
        if status == 401 {
            assert_eq!(self.header("www-authenticate"), "Bearer");
        }
        if status == 503 && slug != "master-key-unusable" {
            assert!(self.retry_after() >= 1, "a caller is told when to ask again: {}", self.text);
        }
        self
    }

    /// Seconds.
    pub fn retry_after(&self) -> u64 {
        self.header("retry-after").parse().unwrap_or(0)
    }

    pub fn detail(&self) -> &str {
        self.json["detail"].as_str().expect("a detail")
    }

    /// The fields that a 422 names.
    pub fn fields(&self) -> Vec<&str> {
        let errors = self.json["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors.iter().map(|error| error["field"].as_str().expect("a field")).collect()
    }

    /// Status, headers that say something of the content, and body, but for what must differ.
    pub fn but_for_the_request_id(&self) -> String {
        let mut headers: Vec<String> = self
            .headers
            .iter()
            .filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()))
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII")))
            .collect();
        headers.sort();
        format!("{} {headers:?} {}", self.status, self.text.replace(self.header("x-request-id"), "[request_id]"))
    }
}

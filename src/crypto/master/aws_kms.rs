//! Master keys in AWS KMS. Three calls of one JSON protocol, signed here (Signature Version 4): the SDK would bring a hundred crates for
//! them.

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use time::{OffsetDateTime, macros::format_description};
use zeroize::Zeroizing;

use super::{CallError, Credential, TIMEOUT, is_private};
use crate::{
    crypto::{
        hmac_sha256,
        seal::{Place, associated_data},
        sha256,
    },
    outbound::{self, Route},
    secret::Sealed,
};

/// Who calls KMS, and where it is.
#[derive(Clone, Debug)]
pub struct AwsKms {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: Credential,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: Credential,
    /// `AWS_SESSION_TOKEN`, of temporary credentials.
    pub session_token: Option<Credential>,
    /// Instead of the region's own: a VPC endpoint, or an emulator.
    pub endpoint: Option<String>,
}

impl AwsKms {
    async fn now(&self) -> Result<Signer, CallError> {
        let token = match &self.session_token {
            Some(token) => Some(token.now().await?).filter(|token| !token.expose_secret().is_empty()),
            None => None,
        };
        Ok(Signer { id: self.access_key_id.now().await?, secret: self.secret_access_key.now().await?, token })
    }

    /// Whether they may be others by now.
    fn change(&self) -> bool {
        [Some(&self.access_key_id), Some(&self.secret_access_key), self.session_token.as_ref()]
            .into_iter()
            .flatten()
            .any(Credential::changes)
    }
}

/// Who signs a call.
struct Signer {
    id: SecretString,
    secret: SecretString,
    token: Option<SecretString>,
}

/// One key of KMS.
#[derive(Debug)]
pub(super) struct KmsKey {
    client: reqwest::Client,
    arn: String,
    region: String,
    endpoint: String,
    host: String,
    aws: AwsKms,
}

impl KmsKey {
    /// A key by its ARN. The error is the rest of a sentence.
    pub(super) fn new(arn: &str, aws: AwsKms) -> Result<Self, String> {
        let not = || "is not of the form awskms:arn:aws:kms:REGION:ACCOUNT:key/ID".to_owned();
        let fields: Vec<&str> = arn.split(':').collect();
        let ["arn", partition, "kms", region, account, key] = fields[..] else { return Err(not()) };
        let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !plain(partition) || !plain(region) || !plain(account) || !(key.starts_with("key/") || key.starts_with("alias/")) {
            return Err(not());
        }
        let domain = if partition == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" };
        let endpoint = aws.endpoint.clone().unwrap_or_else(|| format!("https://kms.{region}.{domain}"));
        let url = reqwest::Url::parse(&endpoint).map_err(|_| "has an endpoint that is no URL".to_owned())?;
        if !is_private(&url) {
            return Err("has an endpoint without TLS, which is taken on loopback only".to_owned());
        }
        let host = url.host_str().ok_or("has an endpoint without a host")?;
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let client = outbound::client(&Route::default(), TIMEOUT).map_err(|error| format!("cannot be called: {error:#}"))?;
        Ok(Self { client, arn: arn.to_owned(), region: region.to_owned(), endpoint, host, aws })
    }

    pub(super) async fn seal(&self, place: Place<'_>, plain: &[u8]) -> Result<Sealed, CallError> {
        let plaintext = Zeroizing::new(STANDARD.encode(plain));
        let body = json!({"KeyId": self.arn, "Plaintext": *plaintext, "EncryptionContext": context(place)});
        Ok(Sealed::from_bytes(self.call("Encrypt", &body, "CiphertextBlob").await?.to_vec()))
    }

    pub(super) async fn open(&self, place: Place<'_>, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, CallError> {
        let blob = STANDARD.encode(sealed.as_bytes());
        let body = json!({"KeyId": self.arn, "CiphertextBlob": blob, "EncryptionContext": context(place)});
        self.call("Decrypt", &body, "Plaintext").await
    }

    async fn call(&self, verb: &str, body: &Value, field: &str) -> Result<Zeroizing<Vec<u8>>, CallError> {
        match self.call_once(verb, body, field).await {
            // The files may have been read while they were written, one of them before and one after.
            Err(CallError::Forbidden(_)) if self.aws.change() => self.call_once(verb, body, field).await,
            other => other,
        }
    }

    async fn call_once(&self, verb: &str, body: &Value, field: &str) -> Result<Zeroizing<Vec<u8>>, CallError> {
        let (signer, body) = (self.aws.now().await?, body.to_string());
        let mut headers = vec![
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("host", self.host.clone()),
            ("x-amz-date", OffsetDateTime::now_utc().format(STAMP).expect("the format has nothing that can fail")),
        ];
        if let Some(token) = &signer.token {
            headers.push(("x-amz-security-token", token.expose_secret().to_owned()));
        }
        headers.push(("x-amz-target", format!("TrentService.{verb}")));
        let authorization = signed(&signer, (&self.region, "kms"), "POST", &headers, body.as_bytes());
        let mut request = self.client.post(&self.endpoint).header("authorization", authorization).body(body);
        for (name, value) in headers.into_iter().filter(|(name, _)| *name != "host") {
            request = request.header(name, value);
        }
        let answer = request.send().await.map_err(|error| CallError::Unavailable(outbound::why(&error)))?;
        let status = answer.status();
        let answer = answer.bytes().await.map_err(|error| CallError::Unavailable(outbound::why(&error)))?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        if !status.is_success() {
            return Err(failed(status.as_u16(), &answer));
        }
        let bytes = answer[field].as_str().and_then(|text| STANDARD.decode(text).ok());
        Ok(Zeroizing::new(bytes.ok_or_else(|| CallError::Unavailable(format!("its answer holds no {field}")))?))
    }
}

/// In the associated data of the ciphertext, and in CloudTrail: so it is a digest.
fn context(place: Place<'_>) -> Value {
    json!({"token-broker": hex::encode(sha256(&associated_data(b"awskms", place)))})
}

fn failed(status: u16, answer: &Value) -> CallError {
    let kind = answer["__type"].as_str().unwrap_or_default().rsplit('#').next().unwrap_or_default().to_owned();
    let kind: String = kind.chars().filter(char::is_ascii_alphanumeric).take(60).collect();
    match kind.as_str() {
        "InvalidCiphertextException" | "IncorrectKeyException" => CallError::Refused(kind),
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "ExpiredTokenException"
        | "InvalidSignatureException"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignatureException" => CallError::Forbidden(kind),
        _ => CallError::Unavailable(format!("it answered {status} {kind}")),
    }
}

const STAMP: &[time::format_description::BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second]Z");

/// The `Authorization` header of Signature Version 4, for the root path without a query. The headers are in the order of their names,
/// and say when (`x-amz-date`).
fn signed(signer: &Signer, (region, service): (&str, &str), method: &str, headers: &[(&str, String)], body: &[u8]) -> String {
    let stamp = headers.iter().find(|(name, _)| *name == "x-amz-date").map(|(_, value)| value.as_str()).unwrap_or_default();
    let day = stamp.get(..8).unwrap_or_default();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let canonical = format!("{method}\n/\n\n{lines}\n{names}\n{}", hex::encode(sha256(body)));
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hex::encode(sha256(canonical.as_bytes())));
    let first = Zeroizing::new(format!("AWS4{}", signer.secret.expose_secret()));
    let mut key = Zeroizing::new(hmac_sha256(first.as_bytes(), day.as_bytes()));
    for part in [region, service, "aws4_request"] {
        key = Zeroizing::new(hmac_sha256(key.as_slice(), part.as_bytes()));
    }
    let signature = hex::encode(hmac_sha256(key.as_slice(), to_sign.as_bytes()));
    let id = signer.id.expose_secret();
    format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> AwsKms {
        AwsKms {
            access_key_id: Credential::Given(SecretString::from("AKIDEXAMPLE")),
            secret_access_key: Credential::Given(SecretString::from("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")),
            session_token: None,
            endpoint: None,
        }
    }

    #[tokio::test]
    async fn signatures_are_those_of_the_published_test_suite() {
        let signer = example().now().await.expect("it is given");
        let headers = [("host", "example.amazonaws.com".to_owned()), ("x-amz-date", "20150830T123600Z".to_owned())];
        // get-vanilla and post-vanilla of aws-sig-v4-test-suite.
        for (method, signature) in [
            ("GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ] {
            let header = signed(&signer, ("us-east-1", "service"), method, &headers, b"");
            assert!(header.ends_with(&format!("SignedHeaders=host;x-amz-date, Signature={signature}")), "{header}");
            assert!(header.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "));
        }
    }

    #[test]
    fn only_the_arn_of_a_key_is_one() {
        let good = KmsKey::new("arn:aws:kms:eu-central-1:123456789012:key/0a1b", example()).expect("an ARN");
        assert_eq!((good.region.as_str(), good.endpoint.as_str()), ("eu-central-1", "https://kms.eu-central-1.amazonaws.com"));
        for bad in [
            "",
            "0a1b",
            "arn:aws:kms:eu-central-1:123456789012:0a1b",
            "arn:aws:s3:eu-central-1:123456789012:key/0a1b",
            "arn:aws:kms::123456789012:key/0a1b",
            "arn:aws:kms:evil.test/:123456789012:key/0a1b",
        ] {
            assert!(KmsKey::new(bad, example()).is_err(), "{bad}");
        }
        assert!(!format!("{good:?}").contains("wJalrXUtn"));
        let plain = AwsKms { endpoint: Some("http://kms.internal".to_owned()), ..example() };
        assert!(KmsKey::new("arn:aws:kms:eu-central-1:123456789012:key/0a1b", plain).is_err());
    }
}

//! How key services are called that keep master keys.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use secrecy::SecretString;

use super::{route, secret};
use crate::crypto::{AwsKms, Credential, KeyServices, SERVICE_ACCOUNT_TOKEN, TransitLogin};

/// Of `TOKEN_BROKER_MASTER_KEYS`' entries that are in a key service.
#[derive(Args, Clone)]
pub(super) struct KeyServiceOptions {
    /// A token of OpenBao or Vault, for `transit:` master keys.
    #[arg(long, env = "TOKEN_BROKER_TRANSIT_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    transit_token: Option<String>,
    /// A file that holds it; read anew at each call, so an agent may keep it fresh.
    #[arg(long, env = "TOKEN_BROKER_TRANSIT_TOKEN_FILE", value_name = "FILE")]
    transit_token_file: Option<PathBuf>,
    /// Log in to OpenBao or Vault with the pod's service account, as this role of the Kubernetes auth method.
    #[arg(long, env = "TOKEN_BROKER_TRANSIT_KUBERNETES_ROLE", value_name = "ROLE")]
    transit_kubernetes_role: Option<String>,
    /// Where that auth method is mounted.
    #[arg(long, env = "TOKEN_BROKER_TRANSIT_KUBERNETES_MOUNT", default_value = "kubernetes", value_name = "PATH")]
    transit_kubernetes_mount: String,
    /// The service account's token.
    #[arg(long, env = "TOKEN_BROKER_TRANSIT_KUBERNETES_TOKEN_FILE", default_value = SERVICE_ACCOUNT_TOKEN, value_name = "FILE")]
    transit_kubernetes_token_file: PathBuf,
    /// A private certificate authority of OpenBao's or Vault's, PEM.
    #[arg(long, env = "TOKEN_BROKER_TRANSIT_CA", value_name = "FILE")]
    transit_ca: Option<PathBuf>,
    /// Who calls AWS KMS, for `awskms:` master keys.
    #[arg(long, env = "AWS_ACCESS_KEY_ID", value_name = "ID")]
    aws_access_key_id: Option<String>,
    /// A file that holds it; this one and the next are read anew at each call, so an agent may keep temporary credentials fresh.
    #[arg(long, env = "AWS_ACCESS_KEY_ID_FILE", value_name = "FILE")]
    aws_access_key_id_file: Option<PathBuf>,
    /// Its secret.
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true, value_name = "SECRET")]
    aws_secret_access_key: Option<String>,
    /// A file that holds it.
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY_FILE", value_name = "FILE")]
    aws_secret_access_key_file: Option<PathBuf>,
    /// Of temporary credentials.
    #[arg(long, env = "AWS_SESSION_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    aws_session_token: Option<String>,
    /// A file that holds it.
    #[arg(long, env = "AWS_SESSION_TOKEN_FILE", value_name = "FILE")]
    aws_session_token_file: Option<PathBuf>,
    /// Where KMS is, if not at its region's usual address.
    #[arg(long, env = "AWS_ENDPOINT_URL_KMS", value_name = "URL")]
    aws_endpoint_url_kms: Option<String>,
}

impl KeyServiceOptions {
    /// Reads and checks.
    pub(super) fn read(&self) -> anyhow::Result<KeyServices> {
        let name = "TOKEN_BROKER_TRANSIT_TOKEN";
        // Both set is refused there; a file is read here once, so that a wrong path is found at the start.
        let token = secret(name, self.transit_token.as_deref(), self.transit_token_file.as_ref())?;
        let login = match (token, &self.transit_kubernetes_role) {
            (Some(_), Some(_)) => bail!("{name} and TOKEN_BROKER_TRANSIT_KUBERNETES_ROLE are both set: which one counts?"),
            (Some(token), None) => Some(match &self.transit_token_file {
                Some(file) => TransitLogin::TokenFile(file.clone()),
                None => TransitLogin::Token(SecretString::from(token)),
            }),
            (None, Some(role)) => Some(TransitLogin::Kubernetes {
                role: role.clone(),
                mount: self.transit_kubernetes_mount.clone(),
                token_file: self.transit_kubernetes_token_file.clone(),
            }),
            (None, None) => None,
        };
        let transit_route = route("TOKEN_BROKER_TRANSIT", self.transit_ca.as_ref(), None, None)?;
        Ok(KeyServices { transit: login, transit_route, aws: self.aws()? })
    }

    fn aws(&self) -> anyhow::Result<Option<AwsKms>> {
        let id = credential("AWS_ACCESS_KEY_ID", self.aws_access_key_id.as_deref(), self.aws_access_key_id_file.as_ref())?;
        let (given, file) = (self.aws_secret_access_key.as_deref(), self.aws_secret_access_key_file.as_ref());
        let secret_access_key = credential("AWS_SECRET_ACCESS_KEY", given, file)?;
        let (given, file) = (self.aws_session_token.as_deref(), self.aws_session_token_file.as_ref());
        let session_token = credential("AWS_SESSION_TOKEN", given, file)?;
        let endpoint = self.aws_endpoint_url_kms.clone();
        let both = id.zip(secret_access_key);
        Ok(both.map(|(access_key_id, secret_access_key)| AwsKms { access_key_id, secret_access_key, session_token, endpoint }))
    }
}

/// A file is read here once, so that a wrong path is found at the start.
fn credential(name: &str, given: Option<&str>, file: Option<&PathBuf>) -> anyhow::Result<Option<Credential>> {
    let read = secret(name, given, file)?;
    Ok(read.map(|text| file.map_or_else(|| Credential::Given(SecretString::from(text)), |file| Credential::File(file.clone()))))
}

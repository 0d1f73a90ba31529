//! Settings: every one is a flag and an environment variable; `X_FILE` may replace any secret `X`. Read by `cli` alone.

mod identities;
mod key_services;
mod webhooks;

use std::{fs, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use anyhow::{Context, bail, ensure};
use clap::Args;
use ipnet::IpNet;

pub use identities::Identities;

use self::{identities::IdentityOptions, key_services::KeyServiceOptions, webhooks::WebhookOptions};
use crate::{api::Rates, broker::Timing, crypto::MasterKeys, jfrog::Instance, names::Name, outbound, store::PgConnectOptions};

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// How long an unwrapped data key stays in memory, unless it is said otherwise.
pub const KEYS_KEPT: Duration = Duration::from_secs(600);

/// Where the database is: all that a command needs that opens nothing sealed.
#[derive(Args, Clone)]
pub struct ConnectOptions {
    /// Postgres, as a URL.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// A file that holds it.
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE")]
    database_url_file: Option<PathBuf>,
}

/// The database with its owner and its keys.
#[derive(Args, Clone)]
pub struct DatabaseOptions {
    #[command(flatten)]
    connect: ConnectOptions,
    /// Who owns the tables, where it is another account than the service's.
    #[arg(long, env = "TOKEN_BROKER_MIGRATE_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    migrate_database_url: Option<String>,
    /// A file that holds it.
    #[arg(long, env = "TOKEN_BROKER_MIGRATE_DATABASE_URL_FILE", value_name = "FILE")]
    migrate_database_url_file: Option<PathBuf>,
    /// Connections to Postgres of this process.
    #[arg(long, env = "TOKEN_BROKER_DATABASE_CONNECTIONS", default_value_t = 10, value_name = "N")]
    database_connections: u32,
    /// `id:base64-of-32-bytes[,id:…]`, `id:transit:https://host/MOUNT/keys/NAME` or `id:awskms:ARN`; the first wraps, all unwrap.
    #[arg(long, env = "TOKEN_BROKER_MASTER_KEYS", hide_env_values = true, value_name = "KEYS")]
    master_keys: Option<String>,
    /// A file that holds them.
    #[arg(long, env = "TOKEN_BROKER_MASTER_KEYS_FILE", value_name = "FILE")]
    master_keys_file: Option<PathBuf>,
    /// How long an unwrapped data key stays in memory, seconds: while a key service is away, what is there serves.
    #[arg(long, env = "TOKEN_BROKER_UNWRAPPED_KEYS_SECONDS", default_value_t = KEYS_KEPT.as_secs(), value_name = "SECONDS")]
    unwrapped_keys_seconds: u64,
    #[command(flatten)]
    key_services: KeyServiceOptions,
}

/// What `serve` needs.
#[derive(Args, Clone)]
pub struct ServeOptions {
    #[command(flatten)]
    database: DatabaseOptions,
    /// The API's address.
    #[arg(long, env = "TOKEN_BROKER_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The operators' address: /metrics and health.
    #[arg(long, env = "TOKEN_BROKER_OPS_LISTEN", default_value = "127.0.0.1:9090", value_name = "ADDRESS")]
    ops_listen: SocketAddr,
    /// `https://host`, or `main=https://a,eu=https://b`; the first is the default instance.
    #[arg(long, env = "TOKEN_BROKER_JFROG_URL", value_name = "URLS")]
    jfrog_url: Option<String>,
    /// Where a rotated pair waits, sealed, until Postgres has it. On a volume of this replica's own.
    #[arg(long, env = "TOKEN_BROKER_JOURNAL_DIR", default_value = "./journal", value_name = "DIR")]
    journal_dir: PathBuf,
    /// Total time for one call to JFrog, seconds.
    #[arg(long, env = "TOKEN_BROKER_JFROG_TIMEOUT_SECONDS", default_value_t = 60, value_name = "SECONDS")]
    jfrog_timeout_seconds: u64,
    /// How long an attempt stands before another replica may recover it; at least 1.5 × the timeout.
    #[arg(long, env = "TOKEN_BROKER_LEASE_SECONDS", default_value_t = 90, value_name = "SECONDS")]
    lease_seconds: u64,
    /// Serve HTTPS with this certificate chain, PEM.
    #[arg(long, env = "TOKEN_BROKER_TLS_CERT", requires = "tls_key", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, env = "TOKEN_BROKER_TLS_KEY", requires = "tls_cert", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// A private certificate authority of JFrog's, PEM.
    #[arg(long, env = "TOKEN_BROKER_JFROG_CA", value_name = "FILE")]
    jfrog_ca: Option<PathBuf>,
    /// A proxy on the way to JFrog; never taken from the environment otherwise.
    #[arg(long, env = "TOKEN_BROKER_JFROG_PROXY", hide_env_values = true, value_name = "URL")]
    jfrog_proxy: Option<String>,
    /// A file that holds it.
    #[arg(long, env = "TOKEN_BROKER_JFROG_PROXY_FILE", value_name = "FILE")]
    jfrog_proxy_file: Option<PathBuf>,
    /// Networks whose `X-Forwarded-For` is believed, comma separated.
    #[arg(long, env = "TOKEN_BROKER_TRUSTED_PROXIES", value_delimiter = ',', value_parser = network, value_name = "NETWORKS")]
    trusted_proxies: Vec<IpNet>,
    #[command(flatten)]
    identities: IdentityOptions,
    #[command(flatten)]
    webhooks: WebhookOptions,
    /// Makes a copied or restored database an installation of its own, which may spend the tokens in it. Only ever given by hand.
    #[arg(long)]
    adopt: bool,
    /// How log lines look.
    #[arg(long, env = "TOKEN_BROKER_LOG_FORMAT", value_enum, default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// The database and its keys, read and checked. No `Debug`: it would print the password.
pub struct Database {
    /// The service's account.
    pub connect: PgConnectOptions,
    /// The tables' owner.
    pub migrate: PgConnectOptions,
    /// How many connections.
    pub connections: u32,
    /// The master keys.
    pub master_keys: MasterKeys,
    /// How long an unwrapped data key stays in memory.
    pub keys_kept: Duration,
}

/// Settings of the service, read and checked.
pub struct Settings {
    /// The database and its keys.
    pub database: Database,
    /// The API's address.
    pub listen: SocketAddr,
    /// The operators' address.
    pub ops_listen: SocketAddr,
    /// The first is the default.
    pub instances: Vec<Instance>,
    /// The way to JFrog.
    pub route: outbound::Route,
    /// This replica's own.
    pub journal_dir: PathBuf,
    /// Times the flows keep to.
    pub timing: Timing,
    /// Certificate chain and key, PEM files.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whose identities are trusted.
    pub identities: Identities,
    /// Who may be told by webhooks.
    pub webhook_hosts: Vec<outbound::AllowedOrigin>,
    /// The way to them.
    pub webhook_route: outbound::Route,
    /// Where checkpoints of the audit are posted.
    pub checkpoints: Option<outbound::Destination>,
    /// How much one credential and one address may ask.
    pub rates: Rates,
    /// Whether a copy becomes an installation of its own.
    pub adopt: bool,
}

impl ConnectOptions {
    /// Reads and checks.
    ///
    /// # Errors
    /// One sentence that names the setting.
    pub fn read(&self) -> anyhow::Result<PgConnectOptions> {
        let url = secret("DATABASE_URL", self.database_url.as_deref(), self.database_url_file.as_ref())?;
        let url = url.context("DATABASE_URL is not set: the service needs a Postgres")?;
        PgConnectOptions::from_str(&url).context("DATABASE_URL is not the URL of a Postgres")
    }
}

impl DatabaseOptions {
    /// Reads and checks.
    ///
    /// # Errors
    /// One sentence that names the setting.
    pub fn read(&self) -> anyhow::Result<Database> {
        let connect = self.connect.read()?;
        let name = "TOKEN_BROKER_MIGRATE_DATABASE_URL";
        let migrate = match secret(name, self.migrate_database_url.as_deref(), self.migrate_database_url_file.as_ref())? {
            Some(url) => PgConnectOptions::from_str(&url).with_context(|| format!("{name} is not the URL of a Postgres"))?,
            None => connect.clone(),
        };
        let name = "TOKEN_BROKER_MASTER_KEYS";
        let keys = secret(name, self.master_keys.as_deref(), self.master_keys_file.as_ref())?;
        let keys = keys.with_context(|| {
            format!(
                "{name} is not set: make a key with `echo \"k1:$(openssl rand -base64 32)\"`, and keep it apart from the database"
            )
        })?;
        let master_keys =
            MasterKeys::parse_with(&keys, &self.key_services.read()?).with_context(|| format!("{name} is not usable"))?;
        ensure!(self.database_connections >= 2, "TOKEN_BROKER_DATABASE_CONNECTIONS must be at least 2: one of them listens");
        ensure!(self.unwrapped_keys_seconds >= 10, "TOKEN_BROKER_UNWRAPPED_KEYS_SECONDS must be at least 10");
        let keys_kept = Duration::from_secs(self.unwrapped_keys_seconds);
        Ok(Database { connect, migrate, connections: self.database_connections, master_keys, keys_kept })
    }
}

impl ServeOptions {
    /// Reads and checks.
    ///
    /// # Errors
    /// One sentence that names the setting.
    pub fn read(&self) -> anyhow::Result<Settings> {
        let urls = self.jfrog_url.as_deref().context("TOKEN_BROKER_JFROG_URL is not set: where is JFrog?")?;
        let timing = Timing {
            jfrog_timeout: Duration::from_secs(self.jfrog_timeout_seconds),
            lease: Duration::from_secs(self.lease_seconds),
            poll: Duration::from_secs(1),
        };
        ensure!(self.jfrog_timeout_seconds >= 1, "TOKEN_BROKER_JFROG_TIMEOUT_SECONDS must be at least 1");
        ensure!(
            timing.lease >= timing.jfrog_timeout * 3 / 2,
            "TOKEN_BROKER_LEASE_SECONDS ({}) must be at least 1.5 × TOKEN_BROKER_JFROG_TIMEOUT_SECONDS ({}): \
             otherwise an attempt is recovered while its call may still be running",
            self.lease_seconds,
            self.jfrog_timeout_seconds
        );
        Ok(Settings {
            database: self.database.read()?,
            listen: self.listen,
            ops_listen: self.ops_listen,
            instances: instances(urls)?,
            route: route(
                "TOKEN_BROKER_JFROG",
                self.jfrog_ca.as_ref(),
                self.jfrog_proxy.as_deref(),
                self.jfrog_proxy_file.as_ref(),
            )?,
            journal_dir: self.journal_dir.clone(),
            timing,
            tls: self.tls_cert.clone().zip(self.tls_key.clone()),
            trusted_proxies: self.trusted_proxies.clone(),
            identities: self.identities.read()?,
            webhook_hosts: self.webhooks.hosts()?,
            webhook_route: self.webhooks.route()?,
            checkpoints: self.webhooks.checkpoints()?,
            rates: self.identities.rates(),
            adopt: self.adopt,
        })
    }
}

/// A secret from its variable or from the file that replaces it.
fn secret(name: &str, value: Option<&str>, file: Option<&PathBuf>) -> anyhow::Result<Option<String>> {
    match (value.filter(|value| !value.is_empty()), file) {
        (Some(_), Some(_)) => bail!("{name} and {name}_FILE are both set: which one counts?"),
        (Some(value), None) => Ok(Some(value.to_owned())),
        (None, Some(file)) => {
            let text = fs::read_to_string(file).with_context(|| format!("{name}_FILE: reading {}", file.display()))?;
            Ok(Some(text.trim().to_owned()))
        }
        (None, None) => Ok(None),
    }
}

/// The way out for one purpose: `<name>_CA`, `<name>_PROXY`. Both are read, so that a mistake is told now and by its name.
fn route(name: &str, ca: Option<&PathBuf>, proxy: Option<&str>, proxy_file: Option<&PathBuf>) -> anyhow::Result<outbound::Route> {
    let ca_pem = match ca {
        Some(path) => {
            let pem = fs::read(path).with_context(|| format!("{name}_CA: reading {}", path.display()))?;
            let authorities = outbound::authorities(&pem).with_context(|| format!("{name}_CA: {}", path.display()))?;
            ensure!(!authorities.is_empty(), "{name}_CA: {} holds no certificate in PEM", path.display());
            Some(pem)
        }
        None => None,
    };
    let proxy = secret(&format!("{name}_PROXY"), proxy, proxy_file)?;
    if let Some(proxy) = &proxy {
        outbound::proxy(proxy).with_context(|| format!("{name}_PROXY is not a URL"))?;
    }
    Ok(outbound::Route { ca_pem, proxy })
}

/// One of a list.
fn network(text: &str) -> Result<IpNet, ipnet::AddrParseError> {
    text.trim().parse()
}

fn instances(list: &str) -> anyhow::Result<Vec<Instance>> {
    let mut instances: Vec<Instance> = Vec::new();
    for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        // A URL may hold a `=` too, but only behind its scheme.
        let (name, url) = match entry.split_once('=') {
            Some((name, url)) if !name.contains(':') => (name.trim(), url.trim()),
            _ => ("main", entry),
        };
        let name: Name = name.parse().with_context(|| format!("TOKEN_BROKER_JFROG_URL: the instance's name {name:?}"))?;
        let url = reqwest::Url::parse(url).with_context(|| format!("TOKEN_BROKER_JFROG_URL: instance {name}"))?;
        ensure!(
            matches!(url.scheme(), "https" | "http") && url.query().is_none() && url.username().is_empty(),
            "TOKEN_BROKER_JFROG_URL: instance {name} must be a plain https://host"
        );
        ensure!(
            instances.iter().all(|known| known.name != name.as_str()),
            "TOKEN_BROKER_JFROG_URL: instance {name} is given twice"
        );
        instances.push(Instance { name: name.to_string(), url: url.as_str().trim_end_matches('/').to_owned() });
    }
    ensure!(!instances.is_empty(), "TOKEN_BROKER_JFROG_URL is empty: where is JFrog?");
    Ok(instances)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_out_that_leads_nowhere_is_told_by_its_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        let ca = |text: &str| {
            fs::write(&file, text).expect("writes");
            route("X", Some(&file), None, None).expect_err(text).to_string()
        };
        assert!(ca("no certificate").starts_with("X_CA: "));
        assert!(ca("-----BEGIN CERTIFICATE-----\nAAAA\n").starts_with("X_CA: "));
        for bad in ["not a proxy", "http://"] {
            assert!(route("X", None, Some(bad), None).expect_err(bad).to_string().starts_with("X_PROXY "), "{bad}");
        }
        fs::write(&file, "http://u:p@proxy.example:3128\n").expect("writes");
        let read = route("X", None, None, Some(&file)).expect("reads");
        assert_eq!(read.proxy.as_deref(), Some("http://u:p@proxy.example:3128"));
        assert_eq!(network(" 10.0.0.0/8").expect("a network").to_string(), "10.0.0.0/8");
    }

    #[test]
    fn instances_are_read_in_both_forms() {
        let one = instances("https://jfrog.example/").expect("reads");
        assert_eq!(one, [Instance { name: "main".into(), url: "https://jfrog.example".into() }]);
        let two = instances("us=https://a.example/jf, eu=https://b.example").expect("reads");
        assert_eq!(two[0], Instance { name: "us".into(), url: "https://a.example/jf".into() });
        assert_eq!(two[1].name, "eu");
        for bad in ["", "jfrog.example", "ftp://x", "a=https://x,a=https://y", "https://u:p@x", "A B=https://x", "https://x?y=z"]
        {
            assert!(instances(bad).is_err(), "{bad}");
        }
    }
}

//! The server part: store, identity, engine, endpoint, and what goes on in the background.

use crate::cli::EndpointOptions;
use crate::clouds::{self, Logins};
use crate::home::Home;
use crate::{listener, uplink};
use anyhow::{Context as _, Result, bail};
use arcus_api::{App, Endpoint};
use arcus_engine::{Engine, EngineConfig};
use arcus_identity::{BootstrapPasswords, Identity};
use arcus_store::{DomainKey, ProjectKey, SealKey, Store};
use arcus_types::{DomainId, OpCtx, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Deadlines of servers' tasks are looked at this often.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// Nodes are looked at this often.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// The default external network.
const EXTERNAL_NETWORK: &str = "public";
/// A join token that this process makes for its own node lasts so long, in seconds.
const OWN_TOKEN_S: i64 = 300;

/// A running server part.
pub struct Cloud {
    /// The endpoint as clients call it.
    pub url: String,
    engine: Engine,
    serving: JoinHandle<Result<()>>,
}

/// Opens the database, does what a first run needs, and serves.
pub async fn start(options: &EndpointOptions, home: &Home, stop: CancellationToken) -> Result<Cloud> {
    let address = options.address();
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("could not listen on {address}; is the port in use? Choose another with --port or ARCUS_PORT")
    })?;
    let url = options.url();
    let database = database(options, home)?;
    let store = Store::open(&database).await?;
    store.seal_with(seal_key(home)?);
    let config = EngineConfig { recovery: !options.no_recovery, ..EngineConfig::under(home.path()) };
    let engine = Engine::new(store.clone(), config);
    let endpoint = Arc::new(Endpoint { url: url.clone(), region: clouds::REGION.to_owned() });
    first_run(home, &url, &store, &engine).await?;
    let identity = Identity::open(store, &home.join("keys"), options.passwords.config((*endpoint).clone())).await?;
    engine.images_recover(&OpCtx::system()).await?;
    let authority = engine.authority()?;
    let names = vec![address.ip().to_string(), "localhost".to_owned(), "127.0.0.1".to_owned()];
    let acceptor = listener::acceptor(authority, &names)?;
    let router = arcus_api::router(App { engine: engine.clone(), identity, endpoint }, arcus_api::routes());
    let serving = tokio::spawn(listener::serve(listener, acceptor, router, stop.clone()));
    tokio::spawn(watch(engine.clone(), stop.clone()));
    tokio::spawn(maintain(engine.clone(), stop.clone()));
    tokio::spawn(sweep(engine.clone(), stop));
    Ok(Cloud { url, engine, serving })
}

/// The database of this cloud: what was asked for, else what the first start with this home folder used.
fn database(options: &EndpointOptions, home: &Home) -> Result<String> {
    const FILE: &str = "database";
    let embedded = home.join("arcus.db");
    let recorded = std::fs::read_to_string(home.join(FILE)).ok();
    match (&options.database, recorded) {
        (Some(_), None) if embedded.exists() => bail!(
            "this cloud keeps its data in {}; start it without --database, or choose another home folder",
            embedded.display()
        ),
        (Some(url), _) => {
            home.write_private(FILE, url)?;
            Ok(url.clone())
        }
        (None, Some(url)) => Ok(url),
        (None, None) => Ok(format!("sqlite://{}", embedded.display())),
    }
}

/// The key that seals servers' secrets in the database; made on the first start. Without it they are lost.
fn seal_key(home: &Home) -> Result<SealKey> {
    const FILE: &str = "secrets.key";
    if !home.join(FILE).exists() {
        let hex: String = rand::random::<[u8; SealKey::BYTES]>().iter().map(|byte| format!("{byte:02x}")).collect();
        home.write_private(FILE, &format!("{hex}\n"))?;
    }
    let path = home.join(FILE);
    let text = std::fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    let text = text.trim();
    let byte = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    let key = bytes.and_then(|bytes| SealKey::new(&bytes).ok());
    key.with_context(|| format!("{} does not hold a key of {} bytes in hexadecimal", path.display(), SealKey::BYTES))
}

/// Makes the first users, flavors and the external network. The passwords are safe on disk before they are in use.
async fn first_run(home: &Home, url: &str, store: &Store, engine: &Engine) -> Result<()> {
    let known = clouds::read(home);
    let fresh = known.is_none();
    let logins = known.unwrap_or_else(|| BootstrapPasswords::random().into());
    clouds::write(home, url, &logins)?;
    if !home.join("admin-password").exists() {
        home.write_private("admin-password", &format!("{}\n", logins.admin_password))?;
    }
    let passwords = BootstrapPasswords { admin: logins.admin_password.clone(), demo: logins.demo_password.clone() };
    if !Identity::bootstrap(store, &passwords).await? && fresh {
        // Its users have other passwords than those just written.
        home.remove("clouds.yaml")?;
        home.remove("admin-password")?;
        bail!(
            "the database holds a cloud that has another home folder than {}: start it with that one, or take an empty \
             database",
            home.path().display()
        );
    }
    let name = ProjectKey::Name { domain: DomainKey::Id(DomainId::DEFAULT), name: "admin" };
    let owner = store.project_get(name).await?.context("the project admin is missing")?.project.id;
    let range = uplink::external_range(home.path())?;
    let gateway = range.hosts().next().context("the external range is empty")?;
    engine.external_network_ensure(owner, EXTERNAL_NETWORK, range.into(), gateway.into()).await?;
    Ok(())
}

impl From<BootstrapPasswords> for Logins {
    fn from(passwords: BootstrapPasswords) -> Self {
        Self { admin_password: passwords.admin, demo_password: passwords.demo }
    }
}

async fn watch(engine: Engine, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(WATCH_EVERY) => {}
        }
        let now = std::time::Instant::now();
        let looked = match engine.nodes_watch(now).await {
            Ok(0) => Ok(()),
            // Servers on their way to or from it need not wait for the next sweep.
            Ok(_) => engine.live_migrations_sweep(Timestamp::now()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = looked {
            tracing::warn!(error = arcus_api::error::chain(&error), "nodes could not be looked at");
        }
        if let Err(error) = engine.nodes_seen_write(now).await {
            tracing::warn!(error = arcus_api::error::chain(&error), "it could not be written when nodes were heard of");
        }
        if let Err(error) = engine.servers_recover(now).await {
            tracing::warn!(
                error = arcus_api::error::chain(&error),
                "servers of lost nodes could not be started elsewhere"
            );
        }
    }
}

/// Moves drains and restorations on: at once after a start, when a move has ended, and now and then while there are any.
async fn maintain(engine: Engine, stop: CancellationToken) {
    loop {
        let again = match engine.maintenance_step(Timestamp::now()).await {
            Ok(0) => SWEEP_EVERY,
            Ok(_) => WATCH_EVERY,
            Err(error) => {
                tracing::warn!(error = arcus_api::error::chain(&error), "drains could not be looked at");
                WATCH_EVERY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = engine.wake().maintenance_due() => {}
            () = tokio::time::sleep(again) => {}
        }
    }
}

async fn sweep(engine: Engine, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        if let Err(error) = engine.servers_sweep(Timestamp::now()).await {
            tracing::warn!(error = arcus_api::error::chain(&error), "servers' deadlines could not be looked at");
        }
        if let Err(error) = engine.live_migrations_sweep(Timestamp::now()).await {
            tracing::warn!(error = arcus_api::error::chain(&error), "servers on their way could not be looked at");
        }
        if let Err(error) = engine.tasks_sweep(Timestamp::now()).await {
            tracing::warn!(error = arcus_api::error::chain(&error), "old tasks could not be looked at");
        }
        if let Err(error) = engine.volumes_sweep(Timestamp::now()).await {
            tracing::warn!(error = arcus_api::error::chain(&error), "volumes' deadlines could not be looked at");
        }
    }
}

impl Cloud {
    /// A token with which one node may join.
    pub async fn join_token(&self) -> Result<String> {
        Ok(self.engine.join_token_create(&OpCtx::system(), 1, OWN_TOKEN_S).await?)
    }

    /// The certificate that clients must trust.
    pub fn ca_pem(&self) -> Result<String> {
        Ok(self.engine.authority()?.ca_pem().to_owned())
    }

    /// Waits until requests that were under way have ended and the database is closed.
    pub async fn ended(self) -> Result<()> {
        self.serving.await.context("the listener ended badly")??;
        self.engine.store().close().await;
        Ok(())
    }
}

//! `hashinsight admin …`: what is done at the server itself, by whoever may read its files.

use crate::agents::ca::Authority;
use crate::agents::{broker_files, ceremony, certificates, tokens};
use crate::config::Config;
use crate::curtailment::approval::{self, ApprovalRule};
use crate::curtailment::request::{Ramp, Rules};
use crate::curtailment::usual::{self, Usual};
use crate::error::{Error, Kind, Result};
use crate::fleet::sites;
use crate::identity::{Role, api_keys, users};
use crate::store::Stores;
use crate::telemetry::retention;
use clap::{Args, Subcommand};
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::units::{DurationMs, Millis, Watts};
use std::path::{Path, PathBuf};

/// Who is named in the audit log.
const WHO: &str = "command line";

#[derive(Subcommand)]
pub enum Admin {
    /// Sites
    #[command(subcommand)]
    Site(Site),
    /// Make a one-time token that enrols one agent at a site
    EnrolToken {
        /// Name or id of the site
        #[arg(long)]
        site: String,
        /// How long the token can be used
        #[arg(long, default_value_t = 60)]
        valid_minutes: u64,
    },
    /// Make a one-time token that puts a new gateway in the place of an agent's old one
    ReplaceToken {
        /// Id of the agent; its miners and plans stay its own
        #[arg(long)]
        agent: String,
        /// How long the token can be used
        #[arg(long, default_value_t = 60)]
        valid_minutes: u64,
    },
    /// Write what a broker of your own needs: its certificate and key, the authorities, the revocation list
    BrokerFiles {
        /// Host name by which agents reach the broker
        #[arg(long)]
        host: String,
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// The root, the signing key and the certificate authority
    #[command(subcommand)]
    Keys(Keys),
    /// Users
    #[command(subcommand)]
    User(User),
    /// API keys
    #[command(subcommand)]
    ApiKey(ApiKey),
    /// One agent
    #[command(subcommand)]
    Agent(Agent),
    /// List the agents
    Agents,
    /// Show how much telemetry there is of each agent, and what was dropped for its age
    Telemetry,
}

/// The ceremony by which keys are replaced. Only `sign` needs the root's key, and no network.
#[derive(Subcommand)]
pub enum Keys {
    /// Show what agents trust, and what signs
    Show,
    /// Make a root in a folder of its own; copy root.pub to the server before its first start
    Root {
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Move the root's key from the server's folder to a medium that is then taken away
    TakeRoot {
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Make the next keys and write the trust list that is wanted, unsigned
    Propose {
        /// With another signing key
        #[arg(long)]
        signing_key: bool,
        /// With another certificate authority
        #[arg(long)]
        authority: bool,
        /// Without the keys that are not in use any more
        #[arg(long)]
        retire: bool,
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Sign a proposal, beside the root's key
    Sign {
        /// Folder of root.key
        #[arg(long, value_name = "DIR")]
        root: PathBuf,
        #[arg(long, value_name = "FILE")]
        proposal: PathBuf,
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Put a signed trust list in place; a running server tells its agents
    Install { file: PathBuf },
    /// Let the next keys take over
    Activate,
}

#[derive(Subcommand)]
pub enum Site {
    /// Add a site
    Add {
        #[arg(long)]
        name: String,
        /// IANA name, for example America/Chicago
        #[arg(long, default_value = "UTC")]
        time_zone: String,
        /// Power of the grid connection
        #[arg(long, value_name = "KW")]
        capacity_kw: Option<u32>,
    },
    /// List the sites
    List,
    /// Show or set what curtailment orders of a site say where they say nothing else
    Usual {
        /// Name or id of the site
        #[arg(long)]
        site: String,
        #[command(flatten)]
        change: UsualChange,
    },
    /// Show or set who may approve curtailment plans of which size
    Approval {
        /// Name or id of the site
        #[arg(long)]
        site: String,
        #[command(flatten)]
        change: ApprovalChange,
    },
}

/// What is changed; the rest stays.
#[derive(Args)]
pub struct ApprovalChange {
    /// The largest plan that an operator approves; larger ones need an approver, administrator or owner
    #[arg(long, value_name = "KW")]
    operator_up_to_kw: Option<u32>,
    /// Operators approve plans of any size
    #[arg(long, conflicts_with = "operator_up_to_kw")]
    operator_any: bool,
    /// Larger plans take two people
    #[arg(long, value_name = "KW")]
    two_above_kw: Option<u32>,
    /// One person approves plans of any size
    #[arg(long, conflicts_with = "two_above_kw")]
    one_any: bool,
}

impl ApprovalChange {
    fn of(&self, rule: ApprovalRule) -> ApprovalRule {
        let limit = |kw: Option<u32>, any: bool, before: Option<Watts>| {
            let kw = kw.and_then(|kw| Watts::from_kilowatts(f64::from(kw)));
            if any { None } else { kw.or(before) }
        };
        ApprovalRule {
            operator_up_to: limit(self.operator_up_to_kw, self.operator_any, rule.operator_up_to),
            two_above: limit(self.two_above_kw, self.one_any, rule.two_above),
        }
    }
}

/// What is changed; the rest stays.
#[derive(Args)]
pub struct UsualChange {
    /// Shortest time that a miner stays stopped
    #[arg(long, value_name = "SECONDS")]
    min_off_s: Option<u32>,
    /// Shortest time that a miner runs before it is stopped again
    #[arg(long, value_name = "SECONDS")]
    min_on_s: Option<u32>,
    /// Starts a miner may make a day
    #[arg(long, value_name = "N")]
    starts_a_day: Option<u16>,
    /// Miners stopped at once
    #[arg(long, value_name = "MINERS")]
    down_batch: Option<u16>,
    /// From one step down to the next
    #[arg(long, value_name = "SECONDS")]
    down_every_s: Option<u32>,
    /// Miners woken at once
    #[arg(long, value_name = "MINERS")]
    up_batch: Option<u16>,
    /// From one step up to the next
    #[arg(long, value_name = "SECONDS")]
    up_every_s: Option<u32>,
}

impl UsualChange {
    fn of(&self, usual: Usual) -> Usual {
        let ramp = |ramp: Ramp, batch: Option<u16>, every_s: Option<u32>| Ramp {
            batch: batch.unwrap_or(ramp.batch),
            every_s: every_s.unwrap_or(ramp.every_s),
        };
        Usual {
            rules: Rules {
                min_off_s: self.min_off_s.unwrap_or(usual.rules.min_off_s),
                min_on_s: self.min_on_s.unwrap_or(usual.rules.min_on_s),
                starts_a_day: self.starts_a_day.or(usual.rules.starts_a_day),
            },
            ramp_down: ramp(usual.ramp_down, self.down_batch, self.down_every_s),
            ramp_up: ramp(usual.ramp_up, self.up_batch, self.up_every_s),
        }
    }
}

#[derive(Subcommand)]
pub enum User {
    /// Add a user with a one-time password
    Add {
        #[arg(long)]
        name: String,
        /// owner, admin, operator, approver, technician or viewer
        #[arg(long)]
        role: String,
    },
    /// Give a user a new one-time password
    Password { name: String },
    /// Switch a user off
    Disable { name: String },
    /// List the users
    List,
}

#[derive(Subcommand)]
pub enum ApiKey {
    /// Make a key with the rights of a user; it is shown once
    Add {
        #[arg(long)]
        user: String,
        /// What the key is for
        #[arg(long)]
        name: String,
    },
    /// Make a key useless
    Revoke { id: String },
    /// List the keys
    List,
}

#[derive(Subcommand)]
pub enum Agent {
    /// Cut an agent off for good
    Revoke { id: String },
}

/// Runs a step of the key ceremony. Needs no database: the root's machine has none.
///
/// # Errors
/// The text says what to do.
pub fn keys(command: Keys, data: &Path, now: Millis) -> Result<()> {
    // No proposal or list of ours is larger.
    const MOST: u64 = 256 * 1024;
    let failed = |file: &Path, what: &str, e: std::io::Error| {
        Error::new(Kind::Unavailable, format!("{} can't be {what}: {e}", file.display()))
    };
    let write = |file: &Path, text: &str| {
        std::fs::write(file, format!("{text}\n")).map_err(|e| failed(file, "written", e))
    };
    let read = |file: &Path| {
        let size = std::fs::metadata(file).map_err(|e| failed(file, "read", e))?.len();
        if size > MOST {
            return Err(Error::invalid(format!("{} is too large to be a trust list", file.display())));
        }
        std::fs::read_to_string(file).map_err(|e| failed(file, "read", e))
    };
    match command {
        Keys::Show => print!("{}", ceremony::status(data)?),
        Keys::Root { out } => println!("root {}", ceremony::make_root(&out)?),
        Keys::TakeRoot { out } => {
            ceremony::take_root(data, &out)?;
            println!("root.key is in {} now; keep it offline, and a copy elsewhere", out.display());
        }
        Keys::Propose { signing_key, authority, retire, out } => {
            let wanted = ceremony::Wanted { signing_key, authority, retire };
            let (list, text) = ceremony::propose(data, wanted, now)?;
            write(&out, &text)?;
            print!("{}", ceremony::shown(&list));
            println!(
                "sign it beside the root: hashinsight admin keys sign --root DIR --proposal {} --out FILE",
                out.display()
            );
        }
        Keys::Sign { root, proposal, out } => {
            let (list, text) = ceremony::sign(&root, &read(&proposal)?)?;
            write(&out, &text)?;
            print!("signed: {}", ceremony::shown(&list));
        }
        Keys::Install { file } => {
            print!("installed: {}", ceremony::shown(&ceremony::install(data, &read(&file)?)?))
        }
        Keys::Activate => {
            println!("in use from now on: the next {}", ceremony::activate(data)?.join(" and the next "))
        }
    }
    Ok(())
}

pub async fn run(command: Admin, config: &Config, stores: &Stores, now: Millis) -> Result<()> {
    let db = &stores.business;
    match command {
        Admin::Site(Site::Add { name, time_zone, capacity_kw }) => {
            let site = sites::add(db, &name, &time_zone, capacity_kw, WHO, now).await?;
            println!("{}", site.id);
        }
        Admin::Site(Site::List) => {
            for site in sites::all(db).await? {
                println!("{}  {}  {}", site.id, site.name, site.time_zone);
            }
        }
        Admin::Site(Site::Usual { site, change }) => {
            let site = sites::find(db, &site).await?;
            let before = usual::of(db, site.id).await?;
            let after = change.of(before);
            if after != before {
                usual::set(db, site.id, after, WHO, now).await?;
            }
            let Usual { rules, ramp_down, ramp_up } = after;
            println!("off for at least {} s, on for at least {} s", rules.min_off_s, rules.min_on_s);
            match rules.starts_a_day {
                Some(starts) => println!("at most {starts} starts a day"),
                None => println!("any number of starts a day"),
            }
            println!("down {} miners every {} s", ramp_down.batch, ramp_down.every_s);
            println!("up {} miners every {} s", ramp_up.batch, ramp_up.every_s);
        }
        Admin::Site(Site::Approval { site, change }) => {
            let site = sites::find(db, &site).await?;
            let before = approval::rule(db, site.id).await?;
            let after = change.of(before);
            if after != before {
                approval::set_rule(db, site.id, after, WHO, now).await?;
            }
            match after.operator_up_to {
                Some(limit) => println!("an operator approves plans up to {limit}"),
                None => println!("an operator approves plans of any size"),
            }
            match after.two_above {
                Some(limit) => println!("plans above {limit} take two people"),
                None => println!("one person approves plans of any size"),
            }
        }
        Admin::EnrolToken { site, valid_minutes } => {
            let site = sites::find(db, &site).await?;
            let authority = Authority::open(&config.data, now)?;
            let valid = DurationMs::from_minutes(valid_minutes);
            let token = tokens::create(db, &authority, site.id, WHO, valid, now).await?;
            println!("{}", token.reveal());
        }
        Admin::ReplaceToken { agent, valid_minutes } => {
            let authority = Authority::open(&config.data, now)?;
            let valid = DurationMs::from_minutes(valid_minutes);
            let token = tokens::create_for(db, &authority, agent_id(&agent)?, WHO, valid, now).await?;
            println!("{}", token.reveal());
        }
        Admin::BrokerFiles { host, out } => {
            broker_files::write(&config.data, stores, &host, &out, now).await?;
            println!(
                "{} holds ca.pem, server.pem, server.key and crl.pem; see deploy/brokers",
                out.display()
            );
        }
        Admin::Keys(command) => keys(command, &config.data, now)?,
        Admin::User(command) => user(command, stores, now).await?,
        Admin::ApiKey(ApiKey::Add { user, name }) => {
            println!("{}", api_keys::add(db, &user, &name, WHO, now).await?);
        }
        Admin::ApiKey(ApiKey::Revoke { id }) => api_keys::revoke(db, &id, WHO, now).await?,
        Admin::ApiKey(ApiKey::List) => {
            for (id, user, name, _, revoked) in api_keys::all(db).await? {
                let state = if revoked.is_some() { "revoked" } else { "valid" };
                println!("{id}  {user}  {state}  {name}");
            }
        }
        Admin::Agent(Agent::Revoke { id }) => {
            let id = agent_id(&id)?;
            if !certificates::revoke(db, id, WHO, now).await? {
                return Err(Error::new(
                    Kind::NotFound,
                    format!("there is no agent {id} that is not revoked already"),
                ));
            }
        }
        Admin::Agents => agents(stores).await?,
        Admin::Telemetry => telemetry(config, stores).await?,
    }
    Ok(())
}

fn agent_id(text: &str) -> Result<AgentId> {
    text.parse().map_err(|e: hashinsight_protocol::ids::NotAnId| Error::invalid(e.to_string()))
}

async fn user(command: User, stores: &Stores, now: Millis) -> Result<()> {
    let db = &stores.business;
    match command {
        User::Add { name, role } => {
            println!("{}", users::add(db, &name, Role::parse(&role)?, WHO, now).await?);
        }
        User::Password { name } => println!("{}", users::reset_password(db, &name, WHO, now).await?),
        User::Disable { name } => users::disable(db, &name, WHO, now).await?,
        User::List => {
            for user in users::all(db).await? {
                let state = if user.disabled_at.is_some() { "disabled" } else { "enabled" };
                println!("{}  {}  {state}", user.name, user.role.name());
            }
        }
    }
    Ok(())
}

async fn agents(stores: &Stores) -> Result<()> {
    for agent in certificates::list(&stores.business).await? {
        let state = match (agent.revoked_at, agent.online) {
            (Some(_), _) => "revoked",
            (None, Some(true)) => "connected",
            (None, _) => "not connected",
        };
        println!("{}  {}  {}  {}  {state}", agent.id, agent.site_name, agent.hostname, agent.version);
    }
    Ok(())
}

async fn telemetry(config: &Config, stores: &Stores) -> Result<()> {
    let days = |age: DurationMs| age.0 / 86_400_000;
    let keep = config.keep;
    println!(
        "kept for (days): raw {}, five-minute {}, hourly {}, daily {}",
        days(keep.raw),
        days(keep.five_minutes),
        days(keep.hourly),
        days(keep.daily)
    );
    for kept in retention::kept(&stores.telemetry).await? {
        println!("{}  kept  raw  {} batches, {} samples", kept.agent, kept.batches, kept.samples);
    }
    for gone in retention::dropped(&stores.telemetry).await? {
        println!("{}  dropped  {}  {} pieces, {} samples", gone.agent, gone.kind, gone.pieces, gone.samples);
    }
    Ok(())
}

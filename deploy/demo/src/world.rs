//! Starts the whole system: control plane, sites, agents and their simulated devices.
//!
//! Everything lives in one folder and on loopback; dropped, all processes end.

use crate::api::Api;
use crate::link::Link;
use crate::process::{Process, run, until};
use crate::{Failure, Result, farm};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// From a program's start to its being ready.
const START: Duration = Duration::from_secs(60);
/// Short dwell times and quick ramps, so that a plan can be watched from end to end.
const USUAL: &[&str] = &[
    "--min-off-s=5",
    "--min-on-s=5",
    "--starts-a-day=1000",
    "--down-batch=20",
    "--down-every-s=1",
    "--up-batch=20",
    "--up-every-s=1",
];
/// Devices answer pages of real size; two farms never share a network.
const FIRST_NET: u8 = 101;

/// What to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Folder for everything; made when it is missing.
    pub folder: PathBuf,
    /// Folder of the programs.
    pub programs: PathBuf,
    /// Port of the console; 0 for a free one.
    pub http_port: u16,
    pub agents: Vec<AgentPlan>,
    /// Seconds from one poll burst to the next.
    pub cycle_s: u32,
    /// Divides devices' ramps and boots.
    pub time_scale: f64,
    /// Families by weight, as the farm takes them; its own mix where none is given.
    pub mix: Option<String>,
    pub seed: u64,
    /// What the control plane and the agents find in their environment.
    pub environment: Vec<(String, String)>,
}

/// One agent and its devices.
#[derive(Clone, Debug)]
pub struct AgentPlan {
    pub name: String,
    pub site: String,
    pub miners: u32,
}

/// The running system.
pub struct World {
    // In the order of their ending: agents first.
    pub agents: Vec<Agent>,
    pub control_plane: Process,
    addresses: Value,
    pub api: Api,
    pub http: SocketAddr,
    pub owner_password: Option<String>,
    /// Site ids by name.
    pub sites: BTreeMap<String, String>,
    pub plan: Plan,
}

/// A running agent with its devices.
pub struct Agent {
    pub process: Process,
    pub farm: Process,
    /// Between the agent and the broker.
    pub link: Link,
    pub name: String,
    pub site: String,
    pub miners: u32,
    pub config: PathBuf,
    /// The farm's control socket and log.
    pub control: SocketAddr,
    pub truth: PathBuf,
    /// Miner ids by device address.
    pub inventory: BTreeMap<String, String>,
}

impl World {
    /// Starts everything that `plan` names; `say` is told each step.
    ///
    /// # Errors
    /// A program is missing, ends, or isn't ready in time: its own words.
    pub fn start(plan: Plan, say: &mut dyn FnMut(&str)) -> Result<Self> {
        std::fs::create_dir_all(&plan.folder).map_err(Failure::of(plan.folder.display()))?;
        say("starting the control plane");
        let data = plan.folder.join("control-plane");
        let log = plan.folder.join("control-plane.log");
        let http = format!("127.0.0.1:{}", plan.http_port);
        let (control_plane, addresses) = serve(&plan, &http, "127.0.0.1:0", "127.0.0.1:0")?;
        let http = address(&addresses, "http")?;
        let owner_password = find_password(&log);

        let admin = |args: &[&str]| {
            let mut command = plan.program("hashinsight");
            command.arg("admin").args(args).arg("--data").arg(&data);
            run(command)
        };
        let mut site_names: Vec<_> = plan.agents.iter().map(|a| a.site.clone()).collect();
        site_names.dedup();
        for name in &site_names {
            admin(&["site", "add", "--name", name])?;
            admin(&[&["site", "usual", "--site", name], USUAL].concat())?;
        }
        let key = admin(&["api-key", "add", "--user", "owner", "--name", "demonstration"])?;
        let key = key.split_whitespace().last().unwrap_or_default().to_owned();
        let api = Api::new(&format!("http://{http}"), &key);
        let sites = site_ids(&api)?;

        let mut agents = Vec::new();
        for (number, agent) in plan.agents.iter().enumerate() {
            say(&format!("starting {} with {} simulated miners at {}", agent.name, agent.miners, agent.site));
            let token = admin(&["enrol-token", "--site", &agent.site])?;
            let token = token.split_whitespace().find(|w| w.starts_with("hi1."));
            let token = token.ok_or_else(|| Failure::new("the control plane printed no enrolment token"))?;
            agents.push(Agent::start(&plan, number, agent, &addresses, token)?);
        }
        Ok(Self { agents, control_plane, addresses, api, http, owner_password, sites, plan })
    }

    /// Starts the control plane again on its addresses, after it was stopped or killed.
    ///
    /// # Errors
    /// It isn't ready in time.
    pub fn restart_control_plane(&mut self) -> Result<()> {
        let at = |name: &str| address(&self.addresses, name).map(|a| a.to_string());
        let (process, _) = serve(&self.plan, &at("http")?, &at("mqtt")?, &at("enrol")?)?;
        self.control_plane = process;
        Ok(())
    }

    /// # Errors
    /// A process has ended.
    pub fn check(&mut self) -> Result<()> {
        self.control_plane.check()?;
        for agent in &mut self.agents {
            agent.process.check()?;
            agent.farm.check()?;
        }
        Ok(())
    }

    pub fn site_id(&self, name: &str) -> Result<&str> {
        let id = self.sites.get(name).map(String::as_str);
        id.ok_or_else(|| Failure::new(format!("there is no site {name}")))
    }

    /// # Errors
    /// The API fails.
    pub fn summary(&self, site: &str) -> Result<Value> {
        self.api.get(&format!("/api/v1/sites/{}/summary", self.site_id(site)?))
    }

    /// The agents of one site.
    pub fn at_site<'a>(&'a self, site: &'a str) -> impl Iterator<Item = &'a Agent> + 'a {
        self.agents.iter().filter(move |a| a.site == site)
    }
}

impl Agent {
    fn start(plan: &Plan, number: usize, agent: &AgentPlan, addresses: &Value, token: &str) -> Result<Self> {
        let folder = plan.folder.join(&agent.name);
        std::fs::create_dir_all(&folder).map_err(Failure::of(folder.display()))?;
        let [api_port, web_port, v3_port, control_port] = free_ports()?;
        let control = SocketAddr::from((Ipv4Addr::LOCALHOST, control_port));
        let (truth, inventory) = (folder.join("farm.jsonl"), folder.join("miners.csv"));
        let ready = folder.join("farm.ready");
        let net = FIRST_NET.wrapping_add(u8::try_from(number).unwrap_or(0));
        let mut command = plan.program("hashinsight-farm");
        command.args([
            "--miners",
            &agent.miners.to_string(),
            "--seed",
            &(plan.seed + number as u64).to_string(),
        ]);
        command.args(["--net", &format!("127.{net}.0.0/16"), "--pre", "asleep=6%,limited=6%,hem=8%"]);
        command.args(["--api-port", &api_port.to_string(), "--web-port", &web_port.to_string()]);
        command.args(["--v3-port", &v3_port.to_string()]);
        if let Some(mix) = &plan.mix {
            command.args(["--mix", mix]);
        }
        command.args(["--time-scale", &plan.time_scale.to_string(), "--control", &control.to_string()]);
        command
            .arg("--log")
            .arg(&truth)
            .arg("--inventory-out")
            .arg(&inventory)
            .arg("--ready-file")
            .arg(&ready);
        let mut farm = Process::start("hashinsight-farm", command, &folder.join("farm.log"))?;
        wait_ready(&mut farm, &ready)?;

        let link = Link::start(address(addresses, "mqtt")?)?;
        let config = folder.join("agent.toml");
        std::fs::write(&config, agent_config(plan.cycle_s, [api_port, web_port, v3_port], link.address()))
            .map_err(Failure::of(config.display()))?;
        let call = |args: &[&str]| {
            let mut command = plan.program("hashinsight-agent");
            command.args(args).arg("--config").arg(&config);
            command
        };
        let enrol = format!("https://localhost:{}", address(addresses, "enrol")?.port());
        run(call(&["enroll", "--url", &enrol, "--token", token, "--name", &agent.name]))?;
        write_credentials(&folder.join("data"))?;
        let mut import = call(&["inventory", "import"]);
        import.arg(&inventory);
        run(import)?;
        let process = Process::start("hashinsight-agent", call(&["run"]), &folder.join("agent.log"))?;
        Ok(Self {
            process,
            farm,
            link,
            name: agent.name.clone(),
            site: agent.site.clone(),
            miners: agent.miners,
            config,
            control,
            truth,
            inventory: read_inventory(&inventory)?,
        })
    }

    /// Starts the agent's program again after it was stopped or killed.
    ///
    /// # Errors
    /// It can't be started.
    pub fn restart(&mut self, plan: &Plan) -> Result<()> {
        let mut command = plan.program("hashinsight-agent");
        command.arg("run").arg("--config").arg(&self.config);
        self.process = Process::start("hashinsight-agent", command, &self.process.log)?;
        Ok(())
    }

    /// Power of its devices, in watts, as they themselves know it.
    ///
    /// # Errors
    /// The farm doesn't answer.
    pub fn power_w(&self) -> Result<f64> {
        farm::power_w(self.control)
    }
}

impl Plan {
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Sign-ins of the simulated devices that have none of their factory's.
const CREDENTIALS: &str = "[proto-rig]\nuser = \"admin\"\npassword = \"proto-rig-1\"\n";

/// Gives the agent the sign-ins that the inventory names.
fn write_credentials(data: &Path) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::create_dir_all(data).map_err(Failure::of(data.display()))?;
    let path = data.join("credentials.toml");
    let mut file = std::fs::OpenOptions::new();
    let file = file.write(true).create(true).truncate(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(CREDENTIALS.as_bytes())).map_err(Failure::of(path.display()))
}

/// Short cycles and confirmations: the simulated devices obey within seconds.
fn agent_config(cycle_s: u32, [api_port, web_port, v3_port]: [u16; 3], broker: SocketAddr) -> String {
    format!(
        "data_dir = \"data\"\nbroker = \"{broker}\"\ncycle_s = {cycle_s}\nwatched_cycle_s = {cycle_s}\n\
         api_port = {api_port}\nweb_port = {web_port}\nv3_port = {v3_port}\ndeadline_ms = 4000\n\n\
         [policy]\nconfirm_within_s = 20\nrestored_within_s = 20\nstop_retry_s = 2\nwake_retry_s = 2\n\
         wake_retry_max_s = 10\nreading_max_age_s = 30\nlate_write_s = 10\n"
    )
}

fn serve(plan: &Plan, http: &str, mqtt: &str, enrol: &str) -> Result<(Process, Value)> {
    let ready = plan.folder.join("control-plane.ready");
    // One of an earlier run says nothing about this one.
    let _ = std::fs::remove_file(&ready);
    let mut command = plan.program("hashinsight");
    command.arg("serve").arg("--data").arg(plan.folder.join("control-plane"));
    command.args(["--http", http, "--mqtt", mqtt, "--enrol", enrol, "--ready-file"]).arg(&ready);
    let mut process = Process::start("hashinsight serve", command, &plan.folder.join("control-plane.log"))?;
    let addresses = wait_ready(&mut process, &ready)?;
    Ok((process, addresses))
}

fn wait_ready(process: &mut Process, file: &Path) -> Result<Value> {
    until("the start", START, || {
        process.check()?;
        Ok(std::fs::read_to_string(file).ok().and_then(|text| serde_json::from_str(&text).ok()))
    })
}

fn address(addresses: &Value, name: &str) -> Result<SocketAddr> {
    let address = addresses[name].as_str().and_then(|a| a.parse().ok());
    address.ok_or_else(|| Failure::new(format!("the control plane named no {name} address")))
}

/// Ports that are free on every address; devices of a farm share its ports.
fn free_ports() -> Result<[u16; 4]> {
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(TcpListener::bind("0.0.0.0:0").map_err(Failure::of("a free port"))?);
    }
    let mut ports = [0; 4];
    for (port, listener) in ports.iter_mut().zip(&held) {
        *port = listener.local_addr().map_err(Failure::of("a free port"))?.port();
    }
    Ok(ports)
}

/// The one-time password in what the server printed at its first start.
fn find_password(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let line = text.lines().find(|line| line.to_lowercase().contains("password"))?;
    line.split_whitespace().last().map(str::to_owned)
}

fn site_ids(api: &Api) -> Result<BTreeMap<String, String>> {
    let answer = api.get("/api/v1/sites")?;
    let list = answer.as_array().or_else(|| answer["sites"].as_array());
    let text = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_owned();
    Ok(list.into_iter().flatten().map(|site| (text(site, "name"), text(site, "id"))).collect())
}

fn read_inventory(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).map_err(Failure::of(path.display()))?;
    let mut miners = BTreeMap::new();
    for line in text.lines().skip(1) {
        let mut fields = line.split(',');
        if let (Some(miner), Some(address)) = (fields.next(), fields.next()) {
            miners.insert(address.to_owned(), miner.to_owned());
        }
    }
    Ok(miners)
}

/// Builds the programs with the profile that this one was built with, and says where they are.
///
/// # Errors
/// The build fails; its output stands above.
pub fn build_programs() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // Within a test these say which one runs; build scripts would take them for a change of theirs, and
    // everything that stands on them would be built again.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            build.env_remove(name);
        }
    }
    let status = build
        .args(["build", "--quiet", "--locked", "--workspace", "--bins", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        .status()
        .map_err(Failure::of("cargo can't be started"))?;
    if !status.success() {
        return Err(Failure::new("the programs can't be built"));
    }
    let here = std::env::current_exe().map_err(Failure::of("this program's own path"))?;
    here.parent().map(Path::to_owned).ok_or_else(|| Failure::new("this program lies nowhere"))
}

/// A reduction order for `site`, with what is usual there.
pub fn reduction(site: &str, kw: f64, minutes: u32) -> Value {
    json!({
        "site": site,
        "goal": {"reduce_kw": kw},
        "minutes": minutes,
        "reason": "demonstration",
    })
}

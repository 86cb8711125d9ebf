//! The drivers against the farm: stops and wakes proven by their effect, lies that are found out,
//! and the changes beside them.
#![allow(clippy::unwrap_used)]

mod changes;
mod lies;
mod stops;

use hashinsight_farm::{Clock, Config, Family, Farm, FaultKind, FaultOrder, Running};
use hashinsight_firmware::{
    Credentials, Device, DeviceError, Identified, Limits, Profiles, Reading, Secret, identify, read,
};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

/// A stop and a wake-up take a second or so.
const SCALE: f64 = 200.0;
pub const LIMITS: Limits = Limits { deadline: Duration::from_secs(5), max_reply: 1 << 20 };

/// Profiles whose settling time is that of the scaled farm.
fn profiles() -> Profiles {
    let folder = tempfile::tempdir().unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../firmware-profiles/profiles");
    for file in std::fs::read_dir(source).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|end| end == "toml") {
            let text = std::fs::read_to_string(&file).unwrap();
            let line = |line: &str| match line.starts_with("settle_s") {
                true => "settle_s = 4\n".to_owned(),
                false => format!("{line}\n"),
            };
            let text: String = text.lines().map(line).collect();
            std::fs::write(folder.path().join(file.file_name().unwrap()), text).unwrap();
        }
    }
    Profiles::with_folder(folder.path()).unwrap()
}

/// One device of one family, and all that is needed to talk to it.
pub struct One {
    pub farm: Running,
    pub profiles: Profiles,
    pub device: Device,
    pub ip: Ipv4Addr,
    pub who: Identified,
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

impl One {
    /// The first device of a family, or that of a model.
    pub async fn start(family: Family, model: Option<&str>) -> Self {
        // Ports may be taken between the asking and the listening; so may those of other tests.
        for _ in 0..20 {
            let config = Config {
                miners: if model.is_some() { 40 } else { 3 },
                net: "127.10.0.0/16".parse().unwrap(),
                api_port: free_port(),
                web_port: free_port(),
                v3_port: free_port(),
                mix: family.name().parse().unwrap(),
                time_scale: SCALE,
                clock: Clock::System,
                ..Config::default()
            };
            let (api_port, web_port, v3_port) = (config.api_port, config.web_port, config.v3_port);
            let Ok(farm) = Farm::start(config).await else { continue };
            let states = farm.state();
            let ip = states.iter().find(|d| model.is_none_or(|model| d.model == model)).unwrap().device;
            let device = Device { api_port, web_port, v3_port, ..Device::at(ip.into()) };
            let profiles = profiles();
            let who = identify(&profiles, &device, &LIMITS).await.unwrap();
            assert_eq!(who.firmware, family.name());
            return Self { farm, profiles, device, ip, who };
        }
        panic!("no free ports");
    }

    pub async fn read(&self) -> Reading {
        read(&self.profiles, &self.device, &self.who, &LIMITS).await.unwrap()
    }

    /// Reads until what is wished for holds; the last reading after 30 s.
    pub async fn read_until(&self, holds: impl Fn(&Reading) -> bool) -> Reading {
        let until = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let reading = read(&self.profiles, &self.device, &self.who, &LIMITS).await;
            match reading {
                Ok(reading) if holds(&reading) || tokio::time::Instant::now() > until => return reading,
                Err(error) if tokio::time::Instant::now() > until => panic!("{error}"),
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    pub fn state(&self) -> hashinsight_farm::DeviceState {
        self.farm.state().into_iter().find(|d| d.device == self.ip).unwrap()
    }

    pub fn fault(&self, kind: FaultKind) {
        self.farm.fault(&FaultOrder::on(kind, self.ip)).unwrap();
    }

    pub fn with_password(&mut self, user: &str, password: &str) {
        let password = Secret::new(password);
        self.device.credentials = Some(Credentials { user: user.to_owned(), password });
    }
}

/// One line, without the secrets that these tests use.
pub fn is_clear(error: &DeviceError) -> bool {
    let text = error.to_string();
    !text.contains('\n') && !text.contains("hush-hush") && text.len() < 400
}

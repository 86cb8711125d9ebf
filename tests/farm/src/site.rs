//! Builds the devices of a farm from its configuration, and the inventory an agent imports.

use crate::config::{Config, MAX_MINERS, Pre};
use crate::device::Device;
use crate::models::{Family, Model, of};
use crate::physics::{Level, Settings};
use crate::rng::{Channel, Draws};
use crate::{FarmError, faults::FaultOrder};
use std::fmt::Write as _;

/// Devices in a rack.
const RACK: u32 = 24;

/// All devices, in the order of their addresses. The same configuration gives the same devices.
pub fn build(config: &Config) -> Result<Vec<Device>, FarmError> {
    if config.miners == 0 || config.miners > MAX_MINERS {
        return Err(FarmError::Config(format!("a farm has 1 to {MAX_MINERS} miners, not {}", config.miners)));
    }
    let addresses: Vec<_> = config.net.hosts().take(config.miners as usize).collect();
    if addresses.len() < config.miners as usize {
        return Err(FarmError::Config(format!(
            "the network has room for {} miners, not for {}",
            addresses.len(),
            config.miners
        )));
    }
    let families = shuffled(config);
    let states = pre_states(config.seed, config.miners, config.pre);
    let devices =
        addresses.into_iter().zip(families).zip(states).enumerate().map(|(i, ((ip, family), state))| {
            let draws = Draws::new(config.seed, i as u64 + 1);
            let model = pick(family, draws);
            let settings = settings(model, state, draws);
            Device::new(i as u32, ip, model, settings, config.seed, config.time_scale)
        });
    Ok(devices.collect())
}

fn pick(family: Family, draws: Draws) -> &'static Model {
    let models: Vec<_> = of(family).collect();
    // Every family has a model.
    models[(draws.bits(Channel::Model, 0) % models.len() as u64) as usize]
}

/// The families in the mix's numbers, in an order drawn from the seed.
fn shuffled(config: &Config) -> Vec<Family> {
    let counts = config.mix.counts(config.miners);
    let mut all: Vec<Family> =
        counts.into_iter().flat_map(|(family, n)| std::iter::repeat_n(family, n as usize)).collect();
    let draws = Draws::new(config.seed, 0);
    for i in (1..all.len()).rev() {
        let j = (draws.bits(Channel::Order, i as u64) % (i as u64 + 1)) as usize;
        all.swap(i, j);
    }
    all
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Ordinary,
    Asleep,
    Limited,
    Hem,
}

/// Exact shares, spread by the seed.
fn pre_states(seed: u64, miners: u32, pre: Pre) -> Vec<State> {
    let order = picked(seed, miners, Channel::PreState, 0);
    let mut states = vec![State::Ordinary; miners as usize];
    let count = |share: f64| (f64::from(miners) * share).round() as usize;
    let kinds = [(State::Asleep, pre.asleep), (State::Limited, pre.limited), (State::Hem, pre.hem)];
    let wanted = kinds.iter().flat_map(|(state, share)| std::iter::repeat_n(*state, count(*share)));
    for (index, state) in order.into_iter().zip(wanted) {
        states[index as usize] = state;
    }
    states
}

/// All indices in an order drawn from the seed.
fn picked(seed: u64, miners: u32, channel: Channel, turn: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..miners).collect();
    order.sort_by_key(|i| Draws::new(seed, u64::from(*i) + 1).bits(channel, turn));
    order
}

fn settings(model: &Model, state: State, draws: Draws) -> Settings {
    let mut s = Settings { asleep: state == State::Asleep, level: Level::Normal, limit: None, profile: 0 };
    let limit = (model.watts * draws.between(Channel::PreState, 9, 0.70, 0.88) / 10.0).round() as u32 * 10;
    let step = -3 - (draws.bits(Channel::PreState, 10) % 3) as i8;
    match (state, model.family) {
        (State::Limited, Family::Antminer | Family::Hiveon) => s.level = Level::LowPower,
        (State::Limited, Family::Luxos | Family::Vnish) => s.profile = step,
        (State::Limited, Family::Whatsminer | Family::Avalon | Family::Braiins) => s.limit = Some(limit),
        (State::Limited, Family::WhatsminerV3 | Family::Sealminer) => s.limit = Some(limit),
        (State::Limited, Family::Auradine | Family::Proto) => s.limit = Some(limit),
        (State::Limited | State::Hem, Family::Goldshell) => s.level = Level::LowPower,
        (State::Hem, Family::Antminer | Family::Hiveon) => s.level = Level::HighEfficiency,
        (State::Hem, Family::Whatsminer | Family::WhatsminerV3) => s.level = Level::LowPower,
        // The oldest of these know an ordinary mode and a faster one only.
        (State::Hem, Family::Avalon) if !model.name.starts_with("15") => s.level = Level::HighPower,
        (State::Hem, Family::Avalon) => s.level = Level::LowPower,
        (State::Hem, Family::Luxos | Family::Vnish) => s.profile = step + 2,
        (State::Hem, Family::Braiins) => s.limit = Some(limit),
        _ => {}
    }
    s
}

/// The devices an order means, by index.
pub fn chosen(
    order: &FaultOrder,
    devices: &[(std::net::Ipv4Addr, Family)],
    seed: u64,
) -> Result<Vec<u32>, String> {
    if let Some(ip) = order.device {
        let index = devices.iter().position(|(a, _)| *a == ip);
        return index.map(|i| vec![i as u32]).ok_or_else(|| format!("no device has the address {ip}"));
    }
    if order.share.is_none() && order.family.is_none() {
        return Err("an order names a device, a family or a share".into());
    }
    let mut all = picked(seed, devices.len() as u32, Channel::Fault, order.kind as u64);
    all.retain(|i| order.family.is_none_or(|f| devices[*i as usize].1 == f));
    if let Some(share) = order.share {
        if !(0.0..=1.0).contains(&share) {
            return Err(format!("{share} is no share between 0 and 1"));
        }
        all.truncate((all.len() as f64 * share).round() as usize);
    }
    Ok(all)
}

/// The CSV that an agent imports. Ports are not in it: they are the same for all.
pub fn inventory(devices: &[Device]) -> String {
    let mut out = String::from("miner,address,rack,position,customer,credentials\n");
    for d in devices {
        let customer = ["", "A", "B"][(d.draws.bits(Channel::Pool, 0) % 3) as usize];
        // Writing into a String cannot fail.
        let _ = writeln!(
            out,
            "{},{},R{:02},{},{customer},{}",
            d.id,
            d.ip,
            d.index / RACK + 1,
            d.index % RACK + 1,
            d.model.family.credentials()
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::FaultKind;

    fn config(miners: u32) -> Config {
        Config { miners, pre: "asleep=5%,limited=10%,hem=5%".parse().expect("valid"), ..Config::default() }
    }

    #[test]
    fn a_seed_gives_one_site() {
        let (a, b) = (build(&config(200)).expect("a site"), build(&config(200)).expect("a site"));
        assert_eq!(inventory(&a), inventory(&b));
        let other = build(&Config { seed: 8, ..config(200) }).expect("a site");
        assert_ne!(inventory(&a), inventory(&other));
        let asleep = a.iter().filter(|d| d.plant.settings.asleep).count();
        assert_eq!(asleep, 10);
        let mut ids: Vec<_> = a.iter().map(|d| d.id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 200);
    }

    #[test]
    fn the_inventory_has_a_line_a_device() {
        let devices = build(&config(50)).expect("a site");
        let text = inventory(&devices);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("miner,address,rack,position,customer,credentials"));
        let first: Vec<_> = lines.next().expect("a device").split(',').collect();
        assert_eq!((first[1], first[2], first[3]), ("127.10.0.1", "R01", "1"));
        assert!(text.contains(",antminer-root") && text.contains(",whatsminer-admin"));
        assert_eq!(text.lines().count(), 51);
    }

    #[test]
    fn a_net_that_is_too_small_is_refused() {
        let small = Config { net: "127.10.0.0/24".parse().expect("valid"), ..config(300) };
        assert!(build(&small).expect_err("too small").to_string().contains("room for 254"));
    }

    #[test]
    fn faults_pick_an_exact_share() {
        let devices: Vec<_> =
            build(&config(100)).expect("a site").iter().map(|d| (d.ip, d.model.family)).collect();
        let lie = chosen(&FaultOrder::share(FaultKind::Lie, 0.05, None), &devices, 7).expect("a share");
        assert_eq!(lie.len(), 5);
        let order = FaultOrder {
            family: Some(Family::Luxos),
            share: None,
            ..FaultOrder::share(FaultKind::Die, 0.0, None)
        };
        let luxos = chosen(&order, &devices, 7).expect("a family");
        assert!(!luxos.is_empty() && luxos.iter().all(|i| devices[*i as usize].1 == Family::Luxos));
        assert!(
            chosen(&FaultOrder::on(FaultKind::Lie, "127.9.9.9".parse().expect("ip")), &devices, 7).is_err()
        );
    }
}

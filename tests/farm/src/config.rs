//! What a farm is made of.

use crate::clock::Clock;
use crate::faults::{FaultKind, FaultOrder};
use crate::models::Family;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Most devices in one farm.
pub const MAX_MINERS: u32 = 60_000;

/// How to build and run a farm.
#[derive(Clone, Debug)]
pub struct Config {
    pub miners: u32,
    pub seed: u64,
    pub net: Net,
    /// Port of the CGMiner API, the same for all devices.
    pub api_port: u16,
    /// Port of the web servers, the same for all devices.
    pub web_port: u16,
    /// Port of Whatsminers' API 3, the same for all devices.
    pub v3_port: u16,
    pub log: Option<PathBuf>,
    pub mix: Mix,
    pub pre: Pre,
    pub faults: Vec<FaultOrder>,
    /// Where the control socket listens; loopback only.
    pub control: Option<SocketAddr>,
    /// A listener of its own for every device, so that connections can truly be refused. Takes a file
    /// descriptor a device and port.
    pub own_listeners: bool,
    /// Divides every ramp, boot and delay. Rates, uptime and clocks run as they are.
    pub time_scale: f64,
    pub clock: Clock,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            miners: 300,
            seed: 7,
            net: Net { base: Ipv4Addr::new(127, 10, 0, 0), prefix: 16 },
            api_port: 4028,
            web_port: 80,
            v3_port: 4433,
            log: None,
            mix: Mix::default(),
            pre: Pre::default(),
            faults: Vec::new(),
            control: None,
            own_listeners: false,
            time_scale: 1.0,
            clock: Clock::System,
        }
    }
}

/// A loopback network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    base: Ipv4Addr,
    prefix: u8,
}

impl Net {
    /// Addresses for devices: all but those that end in 0 or 255.
    pub fn hosts(self) -> impl Iterator<Item = Ipv4Addr> {
        let base = u32::from(self.base);
        let last = base | (u32::MAX >> self.prefix);
        (base..=last).filter(|a| !matches!(a & 0xff, 0 | 0xff)).map(Ipv4Addr::from)
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Net {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no network like 127.10.0.0/16");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        if address.octets()[0] != 127 || !(8..=30).contains(&prefix) {
            return Err(format!(
                "a farm lives on loopback only: \"{text}\" is not within 127.0.0.0/8 with a prefix of 8 to 30"
            ));
        }
        let base = Ipv4Addr::from(u32::from(address) & !(u32::MAX >> prefix));
        Ok(Self { base, prefix })
    }
}

/// Families by weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix(pub Vec<(Family, f64)>);

impl Default for Mix {
    fn default() -> Self {
        use Family::{Antminer, Avalon, Braiins, Cgminer, Luxos, Whatsminer};
        Self(vec![
            (Antminer, 8.0),
            (Whatsminer, 6.0),
            (Avalon, 2.0),
            (Braiins, 2.0),
            (Luxos, 2.0),
            (Cgminer, 1.0),
        ])
    }
}

impl Mix {
    /// How many of each: by largest remainder, so that the sum is exact.
    pub fn counts(&self, miners: u32) -> Vec<(Family, u32)> {
        let total: f64 = self.0.iter().map(|(_, w)| w).sum();
        let mut counts: Vec<(Family, u32, f64)> = self
            .0
            .iter()
            .map(|(family, weight)| {
                let exact = f64::from(miners) * weight / total;
                (*family, exact.floor() as u32, exact.fract())
            })
            .collect();
        let mut left = miners - counts.iter().map(|(_, n, _)| n).sum::<u32>().min(miners);
        let mut order: Vec<usize> = (0..counts.len()).collect();
        order.sort_by(|a, b| counts[*b].2.total_cmp(&counts[*a].2));
        for i in order.into_iter().cycle().take(counts.len() * 2) {
            if left == 0 {
                break;
            }
            counts[i].1 += 1;
            left -= 1;
        }
        counts.into_iter().map(|(family, n, _)| (family, n)).collect()
    }
}

impl FromStr for Mix {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut mix = Vec::new();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let weight: f64 = weight
                .parse()
                .ok()
                .filter(|w: &f64| w.is_finite() && *w > 0.0)
                .ok_or_else(|| format!("\"{weight}\" is no weight; write e.g. {name}=3"))?;
            mix.push((name.trim().parse()?, weight));
        }
        if mix.is_empty() { Err("a mix names at least one family".into()) } else { Ok(Self(mix)) }
    }
}

/// Shares of devices that are not in their ordinary state from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pre {
    pub asleep: f64,
    /// Under a power limit or a lower profile.
    pub limited: f64,
    /// In a mode of better J/TH or of low power.
    pub hem: f64,
}

impl FromStr for Pre {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut pre = Self::default();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (name, share) =
                part.split_once('=').ok_or_else(|| format!("\"{part}\": write e.g. asleep=5%"))?;
            let share = parse_share(share)?;
            match name.trim() {
                "asleep" => pre.asleep = share,
                "limited" => pre.limited = share,
                "hem" => pre.hem = share,
                other => return Err(format!("\"{other}\" is no pre-state; known are asleep, limited, hem")),
            }
        }
        if pre.asleep + pre.limited + pre.hem > 1.0 + 1e-9 {
            return Err("the shares of the pre-states add up to more than all".into());
        }
        Ok(pre)
    }
}

/// A share written as `5%` or `0.05`.
pub fn parse_share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.trim().strip_suffix('%') {
        Some(percent) => (percent, 0.01),
        None => (text.trim(), 1.0),
    };
    number
        .parse::<f64>()
        .ok()
        .map(|n| n * scale)
        .filter(|n| (0.0..=1.0).contains(n))
        .ok_or_else(|| format!("\"{text}\" is no share; write 5% or 0.05"))
}

/// A fault on a share of all devices, `kind=share` or `kind=share:value`.
pub fn parse_fault(text: &str) -> Result<FaultOrder, String> {
    let (kind, rest) = text.split_once('=').ok_or_else(|| format!("\"{text}\": write e.g. lie=5%"))?;
    let kind: FaultKind = kind.trim().parse()?;
    let (share, value) = match rest.split_once(':') {
        Some((share, value)) => {
            let value = value.parse().map_err(|_| format!("\"{value}\" is no value for {}", kind.name()))?;
            (share, Some(value))
        }
        None => (rest, None),
    };
    Ok(FaultOrder::share(kind, parse_share(share)?, value))
}

/// A faults file: one JSON object a line; empty lines and those that begin with `#` are left out.
pub fn parse_faults(text: &str) -> Result<Vec<FaultOrder>, String> {
    let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(n, line)| serde_json::from_str(line).map_err(|e| format!("line {n}: {e}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_networks_are_taken() {
        let net: Net = "127.10.0.7/16".parse().expect("loopback");
        let mut hosts = net.hosts();
        assert_eq!(hosts.next(), Some(Ipv4Addr::new(127, 10, 0, 1)));
        assert_eq!(hosts.nth(253), Some(Ipv4Addr::new(127, 10, 1, 1)));
        for bad in ["10.0.0.0/16", "127.0.0.0/7", "127.0.0.0/32", "127.0.0.0", "x/8"] {
            assert!(bad.parse::<Net>().is_err(), "{bad}");
        }
        assert!("10.0.0.0/16".parse::<Net>().expect_err("not loopback").contains("loopback only"));
    }

    #[test]
    fn a_mix_adds_up() {
        let mix: Mix = "antminer-stock=3,whatsminer=2,luxos".parse().expect("valid");
        let counts = mix.counts(100);
        assert_eq!(counts.iter().map(|(_, n)| n).sum::<u32>(), 100);
        assert_eq!(counts[0], (Family::Antminer, 50));
        assert!(
            "antminer=0".parse::<Mix>().is_err()
                && "foo=1".parse::<Mix>().is_err()
                && "".parse::<Mix>().is_err()
        );
        assert_eq!(Mix::default().counts(1).iter().map(|(_, n)| n).sum::<u32>(), 1);
    }

    #[test]
    fn shares_faults_and_pre_states_parse() {
        assert_eq!("asleep=5%,hem=0.1".parse(), Ok(Pre { asleep: 0.05, limited: 0.0, hem: 0.1 }));
        assert!("asleep=60%,hem=60%".parse::<Pre>().is_err());
        let order = parse_fault("late=5%:30").expect("valid");
        assert_eq!((order.kind, order.share, order.value), (FaultKind::Late, Some(0.05), Some(30.0)));
        assert!(
            parse_fault("lie").is_err() && parse_fault("lie=200%").is_err() && parse_fault("x=1%").is_err()
        );
        let file = "# three sick ones\n{\"kind\":\"hang\",\"device\":\"127.10.0.5\",\"after_s\":10}\n\n";
        assert_eq!(parse_faults(file).expect("valid").len(), 1);
        assert!(parse_faults("{}").expect_err("no kind").starts_with("line 1"));
    }
}

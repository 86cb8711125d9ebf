//! Randomness that depends on what is drawn, not on when or in which order.
//!
//! A draw is a hash of (seed, device, channel, counter). Two polls in another order, or a poll that
//! never came, change nothing for any other draw: that is what makes a farm repeatable.

/// What a draw is for; each has a stream of its own.
#[derive(Clone, Copy, Debug)]
pub enum Channel {
    Order,
    Model,
    PreState,
    Fault,
    Identity,
    HashFactor,
    PowerFactor,
    Ambient,
    Uptime,
    Pool,
    HashNoise,
    PowerNoise,
    BoardNoise,
    TempNoise,
    FanNoise,
    Lost,
    Secret,
    ClockOffset,
}

/// The draws of one device.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    seed: u64,
    device: u64,
}

impl Draws {
    pub fn new(seed: u64, device: u64) -> Self {
        Self { seed, device }
    }

    /// 64 uniform bits.
    pub fn bits(self, channel: Channel, counter: u64) -> u64 {
        let z = mix(self.seed ^ 0x9e37_79b9_7f4a_7c15);
        let z = mix(z ^ self.device.wrapping_mul(0xbf58_476d_1ce4_e5b9));
        let z = mix(z ^ (channel as u64 + 1).wrapping_mul(0x94d0_49bb_1331_11eb));
        mix(z ^ counter.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// Uniform in 0..1.
    pub fn unit(self, channel: Channel, counter: u64) -> f64 {
        (self.bits(channel, counter) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `low..high`.
    pub fn between(self, channel: Channel, counter: u64, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit(channel, counter)
    }

    /// About normal with mean 0 and deviation 1, never beyond 3.5: the sum of four uniform draws.
    pub fn normal(self, channel: Channel, counter: u64) -> f64 {
        let bits = self.bits(channel, counter);
        let sum: f64 = (0..4).map(|i| ((bits >> (16 * i)) & 0xffff) as f64 / 65536.0).sum();
        (sum - 2.0) * 3f64.sqrt()
    }
}

/// The finalizer of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_spread_and_repeatable() {
        let d = Draws::new(7, 3);
        assert_eq!(d.bits(Channel::HashNoise, 5), Draws::new(7, 3).bits(Channel::HashNoise, 5));
        assert_ne!(d.bits(Channel::HashNoise, 5), d.bits(Channel::HashNoise, 6));
        assert_ne!(d.bits(Channel::HashNoise, 5), d.bits(Channel::PowerNoise, 5));
        assert_ne!(d.bits(Channel::HashNoise, 5), Draws::new(8, 3).bits(Channel::HashNoise, 5));
        let n = 20_000;
        let mean: f64 = (0..n).map(|i| d.normal(Channel::HashNoise, i)).sum::<f64>() / n as f64;
        let var: f64 = (0..n).map(|i| d.normal(Channel::HashNoise, i).powi(2)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.03 && (var - 1.0).abs() < 0.05, "{mean} {var}");
    }
}

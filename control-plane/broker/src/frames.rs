//! Reads packets off a stream. The buffer grows with what has arrived, never by what is announced.

use crate::counters::Refusal;
use crate::limits::DoorLimits;
use crate::packets::{self, Packet, Sizes, Taken};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes read at a time.
const READ_BYTES: usize = 8 * 1024;
/// An idle connection keeps no larger buffer than this.
const IDLE_BYTES: usize = 16 * 1024;

/// Why no more packets come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The peer has closed or reset the connection.
    Closed,
    Refused(Refusal),
}

#[derive(Debug)]
pub(crate) struct Frames {
    buffer: BytesMut,
    sizes: Sizes,
}

impl Frames {
    pub fn new(limits: &DoorLimits) -> Self {
        let sizes = Sizes { connect: limits.connect_bytes, payload: limits.up_bytes };
        Self { buffer: BytesMut::new(), sizes }
    }

    /// The next packet. Nothing is lost when the future is dropped.
    pub async fn next(&mut self, io: &mut (impl AsyncRead + Unpin)) -> Result<Packet, Broken> {
        loop {
            match packets::take(&mut self.buffer, self.sizes).map_err(Broken::Refused)? {
                Taken::Packet(packet) => return Ok(packet),
                Taken::Needs(_) => {}
            }
            if self.buffer.is_empty() && self.buffer.capacity() > IDLE_BYTES {
                self.buffer = BytesMut::new();
            }
            self.buffer.reserve(READ_BYTES);
            match io.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return Err(Broken::Closed),
                Ok(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn packets_are_found_however_they_are_cut() {
        let mut bytes = BytesMut::new();
        packets::put_publish(&mut bytes, b"/t", Some(1), &[7; 20_000]);
        packets::put_puback(&mut bytes, 5);
        for size in [1, 7, 1000, 50_000] {
            let mut chunks = bytes.chunks(size).fold(tokio_test_reader(), |mut all, chunk| {
                all.push_back(chunk.to_vec());
                all
            });
            let mut reader = Chunks(&mut chunks);
            let mut frames = Frames::new(&DoorLimits::default());
            assert!(
                matches!(frames.next(&mut reader).await, Ok(Packet::Publish(p)) if p.payload.len() == 20_000)
            );
            assert_eq!(frames.next(&mut reader).await, Ok(Packet::PubAck(5)));
            assert_eq!(frames.next(&mut reader).await, Err(Broken::Closed));
        }
    }

    fn tokio_test_reader() -> std::collections::VecDeque<Vec<u8>> {
        std::collections::VecDeque::new()
    }

    /// A reader that gives one chunk at a time.
    struct Chunks<'a>(&'a mut std::collections::VecDeque<Vec<u8>>);

    impl AsyncRead for Chunks<'_> {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            out: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            if let Some(mut chunk) = self.0.pop_front() {
                let rest = chunk.split_off(chunk.len().min(out.remaining()));
                out.put_slice(&chunk);
                if !rest.is_empty() {
                    self.0.push_front(rest);
                }
            }
            std::task::Poll::Ready(Ok(()))
        }
    }
}

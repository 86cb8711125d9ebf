-- The batch is the record: what arrived stays as it was signed.

-- Once-only: what is stored of each stream of each epoch.
create table ledger (
    agent_id text not null,
    epoch text not null,
    stream bigint not null,
    -- All numbers up to this one are stored.
    up_to bigint not null,
    primary key (agent_id, epoch, stream)
);

-- Runs of numbers stored above up_to, both ends included; disjoint, with a hole between any two.
create table ledger_ahead (
    agent_id text not null,
    epoch text not null,
    stream bigint not null,
    first bigint not null,
    last bigint not null,
    primary key (agent_id, epoch, stream, first)
);

create table batches (
    agent_id text not null,
    epoch text not null,
    stream bigint not null,
    seq bigint not null,
    checksum bigint not null,
    -- Wall time at the burst's start, as the agent says, and when it came.
    at bigint not null,
    received_at bigint not null,
    samples bigint not null,
    -- Its time cannot be: kept, and used for nothing but the export of raw readings.
    absurd_time bigint not null default 0,
    -- The batch that it leans on; its own number for a key batch.
    key_seq bigint not null,
    envelope bytea not null,
    primary key (agent_id, epoch, stream, seq)
);
create index batches_by_time on batches (agent_id, at);

-- Batches that can't be decoded yet, or never: kept with the reason.
create table parked (
    agent_id text not null,
    epoch text not null,
    stream bigint not null,
    seq bigint not null,
    checksum bigint not null,
    reason text not null,
    -- Whether a newer version may understand it, or the content is wrong.
    quarantined bigint not null,
    -- The key batch it waits for.
    waits_for bigint,
    received_at bigint not null,
    envelope bytea not null,
    primary key (agent_id, epoch, stream, seq, checksum)
);
create index parked_waiting on parked (agent_id, epoch, waits_for);

-- By agent first: nobody moves another agent's miner. Readers match agent and miner both.
create table latest (
    agent_id text not null,
    miner_id text not null,
    -- The last poll, whatever came of it.
    at bigint not null,
    received_at bigint not null,
    poll text not null,
    -- When it last answered; all that follows is what it said then.
    answered_at bigint,
    hashrate_hs double precision,
    power_w double precision,
    power_source text,
    hottest_c double precision,
    fan_max bigint,
    fan_min bigint,
    accepted bigint,
    rejected bigint,
    uptime_ms bigint,
    is_mining bigint,
    mode text,
    warnings bigint,
    primary key (agent_id, miner_id)
);

-- Five minutes of one agent's site-wide sums.
create table site_rollups (
    agent_id text not null,
    bucket bigint not null,
    samples bigint not null,
    answered bigint not null,
    hashrate_sum double precision not null,
    power_sum double precision not null,
    primary key (agent_id, bucket)
);

-- Readings that will never come, as agents count them.
create table gaps (
    agent_id text not null,
    epoch text not null,
    cause text not null,
    -- Poll cycles concerned, both included; 0 where they are not known.
    first_cycle bigint not null,
    last_cycle bigint not null,
    -- Numbers of batches that will never come, both included; 0 for none.
    first_seq bigint not null default 0,
    last_seq bigint not null default 0,
    -- Polls that are missing, at most.
    polls bigint not null,
    at bigint not null,
    received_at bigint not null,
    primary key (agent_id, epoch, cause, first_cycle, first_seq)
);

-- PostgreSQL alone: what is packed already is not packed again.
alter table batches alter column envelope set storage external;
alter table parked alter column envelope set storage external;

-- Times are i64 milliseconds UTC, ids lower-case text, booleans 0/1. Portable subset: what stands here
-- has the same meaning in PostgreSQL, but for STRICT and BLOB.

create table users (
    id text primary key,
    name text not null unique,
    role text not null,
    password_hash text not null,
    -- The password was made for the user and opens nothing but the page that sets a new one.
    must_change_password integer not null default 0,
    created_at integer not null,
    disabled_at integer
) strict;

create table sessions (
    -- SHA-256 of the opaque id in the cookie.
    id_hash text primary key,
    user_id text not null references users (id),
    csrf text not null,
    created_at integer not null,
    seen_at integer not null,
    expires_at integer not null
) strict;

create table api_keys (
    id text primary key,
    user_id text not null references users (id),
    name text not null,
    -- SHA-256 of the secret.
    secret_hash text not null unique,
    created_at integer not null,
    revoked_at integer
) strict;

create table sites (
    id text primary key,
    name text not null unique,
    time_zone text not null default 'UTC',
    capacity_w integer,
    created_at integer not null
) strict;

-- What a site's orders say where they say nothing else, as JSON.
create table site_usual (
    site_id text primary key references sites (id),
    body text not null
) strict;

create table agents (
    id text primary key,
    site_id text not null references sites (id),
    hostname text not null,
    version text not null,
    -- Ed25519 key that signs the agent's batches, hex.
    batch_key text not null,
    enrolled_at integer not null,
    revoked_at integer
) strict;

create table agent_certificates (
    fingerprint text primary key,
    agent_id text not null references agents (id),
    serial text not null,
    not_after integer not null,
    issued_at integer not null,
    revoked_at integer
) strict;

create table enrolment_tokens (
    -- SHA-256 of the token's secret.
    secret_hash text primary key,
    site_id text not null references sites (id),
    created_by text not null,
    created_at integer not null,
    expires_at integer not null,
    used_at integer,
    used_by_agent text
) strict;

-- What the agents' hellos and wills say.
create table agent_presence (
    agent_id text primary key references agents (id),
    session integer not null,
    online integer not null,
    seen_at integer not null,
    clock_skew_ms integer,
    clock_state text,
    document_held integer not null default 0
) strict;

create table miners (
    id text primary key,
    agent_id text not null references agents (id),
    site_id text not null references sites (id),
    firmware text,
    model text,
    version text,
    serial text,
    mac text,
    weak_identity integer not null default 0,
    rack text,
    position text,
    customer text,
    can_sleep integer not null default 0,
    can_limit integer not null default 0,
    standby_w integer,
    nameplate_w integer,
    nameplate_hs real,
    restart_ms integer,
    out_of_service integer not null default 0,
    protected integer not null default 0,
    seen_at integer not null,
    gone_at integer,
    -- Where in which journal this was said: of two reports, the later one stands.
    epoch text not null default '',
    place integer not null default 0
) strict;
create index miners_by_site on miners (site_id, rack, position);
create index miners_by_agent on miners (agent_id);

create table plans (
    id text primary key,
    site_id text not null references sites (id),
    -- The order as the operator gave it, JSON.
    body text not null,
    state text not null,
    revision integer not null,
    version integer not null,
    idempotency_key text unique,
    created_by text not null,
    created_at integer not null,
    approved_by text,
    approved_at integer,
    starts_at integer not null,
    ends_at integer,
    -- The plan's stop order: who, when, and whether by force.
    stopped_by text,
    stopped_at integer,
    stopped_force integer not null default 0,
    ended_at integer
) strict;
create index plans_by_site on plans (site_id, starts_at);

create table plan_history (
    plan_id text not null references plans (id),
    number integer not null,
    state text not null,
    at integer not null,
    who text not null,
    why text not null,
    primary key (plan_id, number)
) strict;

-- Each agent's share of a plan.
create table plan_allotments (
    plan_id text not null references plans (id),
    agent_id text not null references agents (id),
    target_w integer not null,
    reserve_w integer not null,
    primary key (plan_id, agent_id)
) strict;

create table dispatches (
    plan_id text not null references plans (id),
    agent_id text not null references agents (id),
    interval_number integer not null,
    state text not null,
    target_w integer not null,
    reached_w integer not null,
    targets integer not null,
    forced integer not null default 0,
    why text not null,
    at integer not null,
    -- The journal and the place in it that this step was read from: of two, the later one stands.
    epoch text not null,
    place integer not null,
    primary key (plan_id, agent_id, interval_number)
) strict;

create table targets (
    plan_id text not null references plans (id),
    interval_number integer not null,
    -- No reference: evidence and inventory come on streams of their own, in any order.
    miner_id text not null,
    agent_id text not null,
    state text not null,
    accepted text not null,
    mode text not null,
    effect text not null,
    power_before_w integer,
    power_now_w integer,
    hashrate_now_hs real,
    -- What it has to be put back to, JSON.
    pre_state text,
    why text not null,
    at integer not null,
    epoch text not null,
    place integer not null,
    primary key (plan_id, interval_number, miner_id)
) strict;
-- What plans hold now: few rows, however many plans there have been.
create index targets_held on targets (plan_id, miner_id)
    where state in ('stopping', 'curtailed', 'drifted', 'waking', 'restore_failed');

-- Every step of every dispatch and target, as reported: the evidence.
create table evidence (
    id integer primary key,
    plan_id text not null,
    agent_id text not null,
    interval_number integer not null,
    miner_id text,
    state text not null,
    at integer not null,
    boot_ms integer not null,
    received_at integer not null,
    body text not null
) strict;
create index evidence_by_plan on evidence (plan_id, at);
-- What the agents said of a whole dispatch, found without walking through all of its miners.
create index evidence_of_dispatches on evidence (plan_id, at) where miner_id is null;

create table desired_documents (
    agent_id text primary key references agents (id),
    version integer not null,
    -- SHA-256 of what the document holds, its version and time left out: equal content is not sent anew.
    content_hash text not null,
    envelope blob not null,
    issued_at integer not null
) strict;

create table orders (
    id text primary key,
    agent_id text not null references agents (id),
    plan_id text,
    envelope blob not null,
    issued_at integer not null,
    expires_at integer not null,
    taken integer,
    result text,
    result_at integer
) strict;
create index orders_open on orders (agent_id, result_at);

create table agent_events (
    id integer primary key,
    agent_id text not null,
    kind text not null,
    at integer not null,
    received_at integer not null,
    body text not null
) strict;
create index agent_events_by_agent on agent_events (agent_id, at);

-- The streams that are never dropped (events, evidence, audit) are stored here, so that what they say
-- is applied in the transaction that takes them. The same tables as for telemetry.
create table ledger (
    agent_id text not null,
    epoch text not null,
    stream integer not null,
    up_to integer not null,
    primary key (agent_id, epoch, stream)
) strict;

create table ledger_ahead (
    agent_id text not null,
    epoch text not null,
    stream integer not null,
    first integer not null,
    last integer not null,
    primary key (agent_id, epoch, stream, first)
) strict;

create table event_batches (
    agent_id text not null,
    epoch text not null,
    stream integer not null,
    seq integer not null,
    checksum integer not null,
    received_at integer not null,
    envelope blob not null,
    primary key (agent_id, epoch, stream, seq)
) strict;

create table parked (
    agent_id text not null,
    epoch text not null,
    stream integer not null,
    seq integer not null,
    checksum integer not null,
    reason text not null,
    quarantined integer not null,
    waits_for integer,
    received_at integer not null,
    envelope blob not null,
    primary key (agent_id, epoch, stream, seq, checksum)
) strict;

create table audit_log (
    id integer primary key,
    at integer not null,
    who text not null,
    what text not null,
    subject text not null,
    detail text not null,
    -- SHA-256 over the row before and this one.
    chain text not null
) strict;

create table settings (
    name text primary key,
    value text not null
) strict;

-- Times are i64 milliseconds UTC, ids lower-case text, booleans 0/1. Portable subset: what stands here
-- has the same meaning in SQLite, but for the names of types.

create table users (
    id text primary key,
    name text not null unique,
    role text not null,
    password_hash text not null,
    -- The password was made for the user and opens nothing but the page that sets a new one.
    must_change_password bigint not null default 0,
    created_at bigint not null,
    disabled_at bigint
);

create table sessions (
    -- SHA-256 of the opaque id in the cookie.
    id_hash text primary key,
    user_id text not null references users (id),
    csrf text not null,
    created_at bigint not null,
    seen_at bigint not null,
    expires_at bigint not null
);

create table api_keys (
    id text primary key,
    user_id text not null references users (id),
    name text not null,
    -- SHA-256 of the secret.
    secret_hash text not null unique,
    created_at bigint not null,
    revoked_at bigint
);

create table sites (
    id text primary key,
    name text not null unique,
    time_zone text not null default 'UTC',
    capacity_w bigint,
    created_at bigint not null
);

-- What a site's orders say where they say nothing else, as JSON.
create table site_usual (
    site_id text primary key references sites (id),
    body text not null
);

create table agents (
    id text primary key,
    site_id text not null references sites (id),
    hostname text not null,
    version text not null,
    -- Ed25519 key that signs the agent's batches, hex.
    batch_key text not null,
    enrolled_at bigint not null,
    revoked_at bigint
);

create table agent_certificates (
    fingerprint text primary key,
    agent_id text not null references agents (id),
    serial text not null,
    not_after bigint not null,
    issued_at bigint not null,
    revoked_at bigint
);

create table enrolment_tokens (
    -- SHA-256 of the token's secret.
    secret_hash text primary key,
    site_id text not null references sites (id),
    created_by text not null,
    created_at bigint not null,
    expires_at bigint not null,
    used_at bigint,
    used_by_agent text
);

-- What the agents' hellos and wills say.
create table agent_presence (
    agent_id text primary key references agents (id),
    session bigint not null,
    online bigint not null,
    seen_at bigint not null,
    clock_skew_ms bigint,
    clock_state text,
    document_held bigint not null default 0
);

create table miners (
    id text primary key,
    agent_id text not null references agents (id),
    site_id text not null references sites (id),
    firmware text,
    model text,
    version text,
    serial text,
    mac text,
    weak_identity bigint not null default 0,
    rack text,
    position text,
    customer text,
    can_sleep bigint not null default 0,
    can_limit bigint not null default 0,
    standby_w bigint,
    nameplate_w bigint,
    nameplate_hs double precision,
    restart_ms bigint,
    out_of_service bigint not null default 0,
    protected bigint not null default 0,
    seen_at bigint not null,
    gone_at bigint,
    -- Where in which journal this was said: of two reports, the later one stands.
    epoch text not null default '',
    place bigint not null default 0
);
create index miners_by_site on miners (site_id, rack, position);
create index miners_by_agent on miners (agent_id);

create table plans (
    id text primary key,
    site_id text not null references sites (id),
    -- The order as the operator gave it, JSON.
    body text not null,
    state text not null,
    revision bigint not null,
    version bigint not null,
    idempotency_key text unique,
    created_by text not null,
    created_at bigint not null,
    approved_by text,
    approved_at bigint,
    starts_at bigint not null,
    ends_at bigint,
    -- The plan's stop order: who, when, and whether by force.
    stopped_by text,
    stopped_at bigint,
    stopped_force bigint not null default 0,
    ended_at bigint
);
create index plans_by_site on plans (site_id, starts_at);

create table plan_history (
    plan_id text not null references plans (id),
    number bigint not null,
    state text not null,
    at bigint not null,
    who text not null,
    why text not null,
    primary key (plan_id, number)
);

-- Each agent's share of a plan.
create table plan_allotments (
    plan_id text not null references plans (id),
    agent_id text not null references agents (id),
    target_w bigint not null,
    reserve_w bigint not null,
    primary key (plan_id, agent_id)
);

create table dispatches (
    plan_id text not null references plans (id),
    agent_id text not null references agents (id),
    interval_number bigint not null,
    state text not null,
    target_w bigint not null,
    reached_w bigint not null,
    targets bigint not null,
    forced bigint not null default 0,
    why text not null,
    at bigint not null,
    -- The journal and the place in it that this step was read from: of two, the later one stands.
    epoch text not null,
    place bigint not null,
    primary key (plan_id, agent_id, interval_number)
);

create table targets (
    plan_id text not null references plans (id),
    interval_number bigint not null,
    -- No reference: evidence and inventory come on streams of their own, in any order.
    miner_id text not null,
    agent_id text not null,
    state text not null,
    accepted text not null,
    mode text not null,
    effect text not null,
    power_before_w bigint,
    power_now_w bigint,
    hashrate_now_hs double precision,
    -- What it has to be put back to, JSON.
    pre_state text,
    why text not null,
    at bigint not null,
    epoch text not null,
    place bigint not null,
    primary key (plan_id, interval_number, miner_id)
);
-- What plans hold now: few rows, however many plans there have been.
create index targets_held on targets (plan_id, miner_id)
    where state in ('stopping', 'curtailed', 'drifted', 'waking', 'restore_failed');

-- Every step of every dispatch and target, as reported: the evidence.
create table evidence (
    id bigint generated by default as identity primary key,
    plan_id text not null,
    agent_id text not null,
    interval_number bigint not null,
    miner_id text,
    state text not null,
    at bigint not null,
    boot_ms bigint not null,
    received_at bigint not null,
    body text not null
);
create index evidence_by_plan on evidence (plan_id, at);
-- What the agents said of a whole dispatch, found without walking through all of its miners.
create index evidence_of_dispatches on evidence (plan_id, at) where miner_id is null;

create table desired_documents (
    agent_id text primary key references agents (id),
    version bigint not null,
    -- SHA-256 of what the document holds, its version and time left out: equal content is not sent anew.
    content_hash text not null,
    envelope bytea not null,
    issued_at bigint not null
);

create table orders (
    id text primary key,
    agent_id text not null references agents (id),
    plan_id text,
    envelope bytea not null,
    issued_at bigint not null,
    expires_at bigint not null,
    taken bigint,
    result text,
    result_at bigint
);
create index orders_open on orders (agent_id, result_at);

create table agent_events (
    id bigint generated by default as identity primary key,
    agent_id text not null,
    kind text not null,
    at bigint not null,
    received_at bigint not null,
    body text not null
);
create index agent_events_by_agent on agent_events (agent_id, at);

-- The streams that are never dropped (events, evidence, audit) are stored here, so that what they say
-- is applied in the transaction that takes them. The same tables as for telemetry.
create table ledger (
    agent_id text not null,
    epoch text not null,
    stream bigint not null,
    up_to bigint not null,
    primary key (agent_id, epoch, stream)
);

create table ledger_ahead (
    agent_id text not null,
    epoch text not null,
    stream bigint not null,
    first bigint not null,
    last bigint not null,
    primary key (agent_id, epoch, stream, first)
);

create table event_batches (
    agent_id text not null,
    epoch text not null,
    stream bigint not null,
    seq bigint not null,
    checksum bigint not null,
    received_at bigint not null,
    envelope bytea not null,
    primary key (agent_id, epoch, stream, seq)
);

create table parked (
    agent_id text not null,
    epoch text not null,
    stream bigint not null,
    seq bigint not null,
    checksum bigint not null,
    reason text not null,
    quarantined bigint not null,
    waits_for bigint,
    received_at bigint not null,
    envelope bytea not null,
    primary key (agent_id, epoch, stream, seq, checksum)
);

create table audit_log (
    id bigint generated by default as identity primary key,
    at bigint not null,
    who text not null,
    what text not null,
    subject text not null,
    detail text not null,
    -- SHA-256 over the row before and this one.
    chain text not null
);

create table settings (
    name text primary key,
    value text not null
);

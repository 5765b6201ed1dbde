// @ts-check
/** What is known of one run, or of two: filled by records, in any order, once or again. */

/**
 * @typedef {object} Effect
 * @property {string} side
 * @property {string} at
 * @property {'agent' | 'model' | 'tool' | 'compute'} kind
 * @property {string} name
 * @property {string} status
 * @property {string} [note]
 * @property {number} [began]
 * @property {number} [ended]
 * @property {boolean} [in_doubt]
 * @property {string} [arguments]
 * @property {any} [output]
 * @property {Record<string, number>} [usage]
 * @property {string} [waited]
 * @property {string} [decision]
 * @property {any[]} [attempts]
 * @property {[number, any][]} [deltas]
 * @property {any[]} [progress]
 * @property {any[]} [dets]
 * @property {any[]} [warnings]
 * @property {any[]} [logs]
 * @property {{where: string, text: string}[]} [problems]
 * @property {any} [start]
 * @property {any} [end]
 * @property {any} [skip]
 */

/**
 * @typedef {object} Difference
 * @property {string} at
 * @property {string} kind
 * @property {string} pointer
 * @property {any} a
 * @property {any} b
 * @property {number | null} position
 * @property {number} more
 * @property {boolean} follows
 */

const NONE = /** @type {string[]} */ ([]);

/** One run: its effects by address, and as a tree. */
export class Run {
  /** @param {string} side */
  constructor(side) {
    this.side = side;
    /** @type {any} */
    this.info = {};
    /** @type {Map<string, Effect>} */
    this.effects = new Map();
    /** @type {Map<string, string[]> | null} */
    this.below = null;
  }

  /** @param {string} at */
  get(at) {
    return this.effects.get(at);
  }

  /**
   * Return the nearest address above one at which there is an effect; '' if there is none.
   * @param {string} at
   */
  above(at) {
    let up = at;
    do up = up.slice(0, Math.max(0, up.lastIndexOf('/')));
    while (up && !this.effects.has(up));
    return up;
  }

  /**
   * Return the addresses right below one, in order; those of '' have none above.
   * @param {string} at
   * @returns {string[]}
   */
  children(at) {
    if (!this.below) {
      this.below = new Map();
      for (const one of this.effects.keys()) {
        const up = this.above(one);
        const list = this.below.get(up);
        if (list) list.push(one);
        else this.below.set(up, [one]);
      }
      for (const list of this.below.values()) list.sort((a, b) => this.order(a, b));
    }
    return this.below.get(at) ?? NONE;
  }

  /**
   * Calls stand in the order of the answer, everything else as it began.
   * @param {string} a
   * @param {string} b
   */
  order(a, b) {
    const one = /** @type {Effect} */ (this.get(a)), other = /** @type {Effect} */ (this.get(b));
    const named = this.side === 'ab' || (one.kind === 'tool' && other.kind === 'tool');
    if (!named && one.began !== undefined && other.began !== undefined && one.began !== other.began) return one.began - other.began;
    return compareAddresses(a, b);
  }

  /** The outermost agent's address. */
  get root() {
    return this.info.root ?? this.children('')[0] ?? '';
  }

  /**
   * Return the model call before this one, of the same agent.
   * @param {Effect} effect
   */
  previous(effect) {
    const siblings = this.children(this.above(effect.at)).filter((at) => this.get(at)?.kind === 'model');
    return this.get(siblings[siblings.indexOf(effect.at) - 1] ?? '');
  }

  /**
   * Return the hashes of all messages of a request.
   * @param {Effect | undefined} effect
   * @returns {string[]}
   */
  messages(effect) {
    /** @type {string[][]} */
    const parts = [];
    for (let one = effect; one; one = this.get(one.start?.since ?? '')) {
      parts.push(one.start?.messages ?? NONE);
      if (parts.length > this.effects.size) break;
    }
    return parts.reverse().flat();
  }

  /** When it ended, or until when it is known. */
  get end() {
    return this.info.t ?? 0;
  }
}

/** Everything that the page shows. */
export class Store {
  constructor() {
    /** @type {any} */
    this.page = { marks: {}, failed: [], program: 'agentkit', app: 'FILE.py:NAME' };
    /** @type {Record<string, Run>} */
    this.runs = { a: new Run('a'), b: new Run('b') };
    /** @type {Map<string, any>} */
    this.blobs = new Map();
    /** @type {Map<string, any>} */
    this.sources = new Map();
    /** @type {any} */
    this.diff = null;
    /** @type {Run | undefined} */
    this.both = undefined;
    /** @type {Map<string, Difference[]>} */
    this.differences = new Map();
  }

  /** Whether two runs are compared. */
  get two() {
    return this.diff !== null;
  }

  /** The run that the tree shows: the only one, or both as one. */
  get shown() {
    if (!this.two) return this.runs.a;
    if (!this.both) {
      this.both = new Run('ab');
      this.both.info = this.runs.a.info;
      for (const run of [this.runs.b, this.runs.a]) for (const [at, one] of run.effects) this.both.effects.set(at, one);
    }
    return this.both;
  }

  /**
   * Return the effect of one side, or of the other where that has none.
   * @param {string} at
   * @param {string} side
   */
  find(at, side) {
    return this.runs[side].get(at) ?? (this.two ? this.shown.get(at) : undefined);
  }

  /**
   * Take records.
   * @param {any[]} records
   */
  add(records) {
    for (const record of records) {
      const run = this.runs[record.side];
      switch (record.type) {
        case 'page': this.page = record; break;
        case 'run': run.info = record; break;
        case 'blob': this.blobs.set(record.name, record.data); break;
        case 'source': this.sources.set(record.name, record); break;
        case 'diff': this.compare(record); break;
        case 'effect':
          if (!run.effects.has(record.at)) run.below = null;
          run.effects.set(record.at, record);
      }
    }
  }

  /** @param {any} diff */
  compare(diff) {
    this.diff = diff;
    for (const one of diff.differences) {
      this.differences.set(one.at, [...(this.differences.get(one.at) ?? []), one]);
    }
  }

  /**
   * Return a content by its hash; the hash itself where it was not recorded.
   * @param {string | null | undefined} name
   */
  blob(name) {
    return name ? this.blobs.get(name) ?? name : undefined;
  }

  /** @param {Effect | undefined} effect */
  failed(effect) {
    return effect !== undefined && this.page.failed.includes(effect.status);
  }

  /**
   * Return how a status is shown: a sign, further words, and a tone.
   * @param {string} status
   * @returns {{sign: string, word: string, tone: string}}
   */
  mark(status) {
    const known = status === 'interrupted' ? 'in_flight' : status;
    const [mark, tone] = (Object.hasOwn(this.page.marks, known) && this.page.marks[known]) || ['', status === 'running' ? 'blue' : 'yellow'];
    return { sign: mark.split(' ')[0] || '•', word: Object.hasOwn(WORDS, status) ? WORDS[status] : status.replace('_', ' '), tone };
  }
}

const COLLATOR = new Intl.Collator('en', { numeric: true });
/** @type {Record<string, string>} */
const WORDS = { in_flight: 'in flight', skipped: 'not run', pending: 'waits', interrupted: 'broken off' };

/**
 * Compare addresses part by part, numbers by their value.
 * @param {string} a
 * @param {string} b
 */
export function compareAddresses(a, b) {
  return COLLATOR.compare(a, b);
}

/**
 * Return the text of a message, its calls included.
 * @param {any} data
 * @returns {string}
 */
export function messageText(data) {
  if (data === null || typeof data !== 'object') return String(data ?? '');
  const { content } = data;
  const parts = Array.isArray(content) ? content.map((part) => part?.text ?? `(${part?.type ?? 'part'})`) : [];
  return typeof content === 'string' ? content : parts.join('\n');
}

/**
 * Return the calls of an answer.
 * @param {any} data
 * @returns {{name: string, arguments: string}[]}
 */
export function callsOf(data) {
  const calls = Array.isArray(data?.tool_calls) ? data.tool_calls : [];
  return calls.map((/** @type {any} */ one) => ({ name: String(one?.function?.name ?? '?'), arguments: String(one?.function?.arguments ?? '') }));
}

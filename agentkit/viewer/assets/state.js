// @ts-check
/** What is looked at: the address, the tab, the search, the stretch of time. */

import { Run, Store } from './store.js';

/**
 * @typedef {object} App
 * @property {Store} store
 * @property {State} state
 * @property {import('./source.js').Source} source
 * @property {(text: string) => void} announce show a short message
 */

export class State {
  side = 'a';
  at = '';
  tab = '';
  query = '';
  /** @type {[number, number] | null} the stretch of time that is shown alone */
  range = null;
  /** @type {Set<string>} addresses whose rows are shown without what is below */
  closed = new Set();
  /** @type {Set<string>} sub-agents that were opened */
  opened = new Set();
  /** @type {Set<string>} addresses at which the search found something */
  hits = new Set();

  /** @param {() => void} changed is called after every change */
  constructor(changed) {
    this.changed = changed;
  }

  /** @param {Partial<State>} patch */
  set(patch) {
    Object.assign(this, patch);
    this.changed();
  }

  /**
   * Show what is below an address, or do not.
   * @param {string} at
   * @param {boolean} open
   */
  open(at, open) {
    (open ? this.closed : this.opened).delete(at);
    (open ? this.opened : this.closed).add(at);
  }

  /**
   * Look at an address, with everything above it opened.
   * @param {Run} run
   * @param {string} at
   * @param {Partial<State>} [more]
   */
  go(run, at, more = {}) {
    for (let up = run.above(at); up; up = run.above(up)) this.open(up, true);
    this.set({ at, ...more });
  }
}

/**
 * Return what the hash of a URL asks for.
 * @param {string} hash
 */
export function fromHash(hash) {
  const found = new URLSearchParams(hash.replace(/^#/, ''));
  return { at: found.get('at') ?? '', tab: found.get('tab') ?? '', side: found.get('side') ?? '' };
}

/**
 * Return the hash that leads to an address.
 * @param {State} state
 * @param {boolean} two
 */
export function toHash({ at, tab, side }, two) {
  const parts = [`at=${encodeURIComponent(at).replaceAll('%2F', '/')}`];
  if (tab) parts.push(`tab=${encodeURIComponent(tab)}`);
  if (two && side === 'b') parts.push('side=b');
  return `#${parts.join('&')}`;
}

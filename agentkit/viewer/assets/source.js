// @ts-check
/** Where records come from: the page's own data, or a server that follows a run. */

/**
 * @typedef {object} Source
 * @property {boolean} live whether more may come
 * @property {AsyncIterable<any[]>} batches arrays of records
 * @property {((at: string, decision: object) => Promise<void>)} [decide] answer a call that waits
 */

/**
 * Return the source that a data block names.
 * @param {HTMLElement} block
 * @returns {Source}
 */
export function sourceOf(block) {
  const url = block.dataset.stream;
  return url ? { live: true, batches: followed(url), decide: decider(block.dataset.decide) } : { live: false, batches: embedded(block.textContent ?? '') };
}

/**
 * Yield the records of a data block: lines of JSON, compressed, as base64.
 * @param {string} text
 */
async function* embedded(text) {
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; index += 1) bytes[index] = binary.charCodeAt(index);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  const lines = (await new Response(stream).text()).split('\n');
  yield lines.map((line) => JSON.parse(line));
}

/**
 * Yield the records that a server sends, until it says that the run is over.
 * @param {string} url
 * @returns {AsyncGenerator<any[]>}
 */
async function* followed(url) {
  const events = new EventSource(url);
  /** @type {any[][]} */
  const queue = [];
  let over = false;
  let wake = () => {};
  events.onmessage = (event) => {
    queue.push(JSON.parse(event.data));
    wake();
  };
  notes(events);
  events.addEventListener('end', () => {
    over = true;
    events.close();
    wake();
  });
  while (!over || queue.length) {
    if (queue.length) yield queue.splice(0).flat();
    else await new Promise((resolve) => { wake = () => resolve(undefined); });
  }
}

/**
 * Tell the page what is wrong with what it follows: `agentkit-note`, with the text or ''.
 * @param {EventSource} events
 */
export function notes(events) {
  const note = (/** @type {string} */ text) => document.dispatchEvent(new CustomEvent('agentkit-note', { detail: text }));
  events.addEventListener('problem', (event) => note(JSON.parse(event.data)));
  events.addEventListener('reset', () => location.reload());
  events.addEventListener('open', () => note(''));
  events.onerror = () => note('The server does not answer: this is what was known before. It may have ended.');
}

/**
 * Return what sends a decision; undefined where there is nobody to send it to.
 * @param {string | undefined} url
 */
function decider(url) {
  if (!url) return undefined;
  return async (/** @type {string} */ at, /** @type {object} */ decision) => {
    const body = JSON.stringify({ at, ...decision });
    const answer = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
    if (!answer.ok) throw new Error(await answer.text());
  };
}

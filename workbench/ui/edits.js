// Edits of the plan as one ordered stream; follows common.js in one file (components.py).
// An edit is {verb, places, name, value, teacher}: the press and the blocks it is about. Edits wait while an answer is on its
// way and are then sent together, in their order. Each has a number: one that is sent twice is applied once. What was not
// confirmed when the page is left is sent by the page that follows it in this tab.
window.workbench.EditStream = class {
  // send(batch) -> the server's answer, or nothing where there was none; confirmed(answer) once the server has a batch;
  // changed() when something waits, or no longer does. storage: of this tab.
  constructor({send, confirmed, changed, storage = window.sessionStorage, pause = 500}) {
    Object.assign(this, {send, confirmed, changed, storage, pause, version: 0, failures: 0, busy: null});
    this.window = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
    this.number = 0;
    this.pending = this.remembered();
    if (this.pending.length) this.flush();
  }
  remembered() {
    try { return JSON.parse(this.storage.getItem('workbench-edits')) || []; } catch { return []; }
  }
  remember() {
    try { this.storage.setItem('workbench-edits', JSON.stringify(this.pending)); } catch { /* a full or closed storage */ }
  }
  push(edit) {
    this.pending.push({...edit, number: ++this.number, window: this.window});
    this.remember();
    this.changed();
    this.flush();
  }
  // The first edits of one window and one teacher: after a reload, those of the former page go first.
  batch() {
    const {window, teacher} = this.pending[0];
    const other = this.pending.findIndex(edit => edit.window !== window || edit.teacher !== teacher);
    const edits = this.pending.slice(0, other < 0 ? 200 : Math.min(other, 200));
    return {window, teacher, version: this.version, edits};
  }
  flush() {
    this.busy ??= this.run().finally(() => { this.busy = null; if (this.pending.length) this.flush(); });
    return this.busy;
  }
  async run() {
    await null;  // so that `busy` is set before anything is sent
    while (this.pending.length) {
      const batch = this.batch();
      let answer;
      try { answer = await this.send(batch); } catch { /* told by its absence */ }
      if (!answer) {
        this.failures += 1;
        this.changed();
        await new Promise(done => setTimeout(done, this.pause * Math.min(16, 2 ** (this.failures - 1))));
        continue;
      }
      this.failures = 0;
      this.pending.splice(0, batch.edits.length);
      this.remember();
      if (typeof answer.version === 'number') this.version = answer.version;
      this.confirmed(answer, batch);
      this.changed();
    }
  }
  // Resolves once nothing waits.
  async settled() { while (this.pending.length) await this.flush(); }
};
// Marks as they will most likely be: keep, drop and merge are painted at once, the server's answer replaces them.
window.workbench.expected = function (rows, pending) {
  const glyphs = {keep: '', drop: '✕', merge: '+'}, former = [];
  let marks = rows;
  for (const {verb, places} of pending) {
    if (verb === 'undo') marks = former.pop() || marks;
    if (!(verb in glyphs)) continue;
    const beside = at => places.includes(at - 1) || places.includes(at + 1);
    let chosen = new Set(places);
    if (verb === 'merge') chosen = new Set(places.length > 1 ? places.filter(beside) : [places[0], places[0] + 1]);
    former.push(marks);
    marks = marks.map(row => chosen.has(row.at) ? {...row, mark: verb, glyph: glyphs[verb]} : row);
  }
  return marks;
};

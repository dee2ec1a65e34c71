// The form of the selected student blocks. props.value: {title, fields: [{name, label, kind, choices: [[label, value]], value,
// enabled, info}], parts: [[name, dropped]]}. Native controls: they say `change` only when a person changed something, so opening
// and leaving one writes nothing. What was changed is an edit of the blocks that are selected on the map.
const host = element.querySelector('.form-host');
const make = (tag, more, ...children) => { const node = Object.assign(document.createElement(tag), more); node.append(...children); return node; };
let drawn = '';

function radios(field, id) {
  const options = field.choices.map(([text, value]) => {
    const input = make('input', {type: 'radio', name: id, value, checked: value === field.value, disabled: !field.enabled});
    input.onchange = () => workbench.map.edit(field.name, {value});
    return make('label', {}, input, text);
  });
  return make('fieldset', {id, disabled: !field.enabled}, make('legend', {textContent: field.label}), ...options);
}

function list(field, id) {
  const control = make('select', {disabled: !field.enabled});
  if (field.value === null) control.append(make('option', {value: '', textContent: '', selected: true, disabled: true}));
  for (const [text, value] of field.choices) control.append(make('option', {value, textContent: text, selected: value === field.value}));
  control.onchange = () => workbench.map.edit(field.name, {value: control.value});
  return labelled(field, id, control);
}

function text(field, id) {
  const control = make('input', {type: 'text', value: field.value ?? '', disabled: !field.enabled, size: 8});
  const options = make('datalist', {id: id + '-list'}, ...field.choices.map(([text, value]) => make('option', {value, textContent: text})));
  control.setAttribute('list', options.id);
  control.onchange = () => { if (control.value.trim()) workbench.map.edit(field.name, {value: control.value.trim()}); };
  control.onkeydown = event => { if (event.key === 'Enter') workbench.map.focus(); };
  return labelled(field, id, control, options);
}

function labelled(field, id, ...controls) {
  const label = make('label', {id, className: 'list'}, make('span', {textContent: field.label}), ...controls);
  if (field.info) label.append(make('small', {textContent: field.info}));
  return label;
}

function parts({title, parts}) {
  const boxes = parts.map(([name, dropped]) => {
    const input = make('input', {type: 'checkbox', value: name, checked: dropped});
    input.onchange = () => workbench.map.edit('part', {name, value: input.checked});
    return make('label', {}, input, name);
  });
  return make('fieldset', {id: 'hand-parts'}, make('legend', {textContent: title}), ...boxes);
}

const KINDS = {radios, list, text};
function draw() {
  const value = props.value || {}, text = JSON.stringify(value);
  if (text === drawn || !value.fields) return;  // drawn again, an open list would close
  drawn = text;
  const at = host.contains(document.activeElement) ? [...host.querySelectorAll('input, select')].indexOf(document.activeElement) : -1;
  host.replaceChildren(...value.fields.map(field => KINDS[field.kind](field, 'hand-' + field.name)), parts(value));
  if (at >= 0) host.querySelectorAll('input, select')[at]?.focus();
}
watch('value', draw);
draw();

"Figures and pages of a run: they show its figures, and say what is missing"
import json,shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
import numpy as np,pandas as pd
import pytest,torch
from matplotlib import pyplot as plt
from PIL import Image
from fashion_fastai.build import recipe_learner
from fashion_fastai.core import InputError
from fashion_fastai.examples import example_learner,example_run,example_table
from fashion_fastai.interpret.core import FashionInterpretation,grad_cam
from fashion_fastai.interpret.plots import (calibration,plot_calibration,plot_confusion,plot_correlations,plot_history,plot_precision_recall,
    plot_results,plot_top_losses,show_grad_cam)
from fashion_fastai.metrics import label_scores
from fashion_fastai.folders.run import read_run
from fashion_fastai.recipes.settings import read_recipe
from fashion_fastai.report.page import machine,save_report,write_label_scores,write_report
from fashion_fastai.report.tables import fold_score_table,label_table,ranking_table,time_table

@pytest.fixture(scope='module')
def learn(): return example_learner()

@pytest.fixture(scope='module')
def interp(learn): return FashionInterpretation.from_learner(learn, learn.tune_decision())

def test_heat_maps_are_named_by_their_label_and_probability(learn, interp):
    figure = show_grad_cam(learn, interp.images[0], [None, 'belted'])
    name,p = max(learn.predict(interp.images[0]).category_probabilities.items(), key=lambda o: o[1])
    assert figure.axes[1].get_title() == f'{name} {p:.0%}' and plt.get_fignums() == [] # pyplot keeps none

def test_a_heat_map_without_categories_is_of_the_most_probable_attribute():
    learn = recipe_learner(example_table(), read_recipe('demo', category_weight=0, stages='24x18:1', precision='fp32'))
    image = learn.dls.valid.items[0].image
    probabilities = learn.predict(image).attribute_probabilities
    assert show_grad_cam(learn, image).axes[1].get_title().startswith(max(probabilities, key=probabilities.get))

def test_a_heat_map_is_of_one_label_and_changes_nothing_in_the_learner(learn, interp):
    image = interp.images[0]
    heat = grad_cam(learn, image)
    assert torch.equal(heat, grad_cam(learn, image, learn.predict(image).category)) and torch.equal(heat, grad_cam(learn, Image.open(image)))
    assert not torch.equal(heat, grad_cam(learn, image, 'red'))
    with torch.inference_mode(): assert torch.equal(heat, grad_cam(learn, image))
    with pytest.raises(InputError, match="label 'crinoline' is not known; there are the categories top,"): grad_cam(learn, image, 'crinoline')
    assert not any(o._forward_hooks for o in learn.model[0]) and all(o.grad is None or not o.grad.any() for o in learn.model.parameters())

def test_predictions_of_a_data_set_are_those_of_the_training_and_the_learner(learn, interp):
    last = pd.read_csv(example_run()/'history.csv').iloc[-1]
    assert interp.correct.float().mean().item() == pytest.approx(last.accuracy, abs=1e-5)
    losses = [interp.losses(o).mean().item() for o in ('category','attributes')]
    assert losses == pytest.approx([last.category_loss, last.attribute_loss], abs=1e-4)
    assert interp.images == [o.image for o in example_table(1000).rows if o.is_valid]
    assert torch.allclose(interp.probabilities()[1], learn.get_preds()[0][1], atol=1e-5)
    with pytest.raises(InputError, match="part 'colour' is not known; there are category, attributes"): interp.losses('colour')

def test_saved_predictions_are_read_again_and_damaged_files_refused(interp, tmp_path):
    file,offsets = tmp_path/'validation.npz',[0.]*len(interp.vocab.categories)
    grouped = replace(interp, image_groups=np.arange(len(interp))//2)
    grouped.save(file)
    for name,o in vars(FashionInterpretation.load(file)).items():
        expected = getattr(grouped, name)
        if name == 'logits': assert all(map(torch.equal, o, expected))
        elif hasattr(o, 'shape'): assert (np.asarray(o) == np.asarray(expected)).all(), name
        else: assert o == expected, name
    offsets[2] = 100. # logit adjustment that leaves one category
    adjusted = replace(interp, category_offsets=offsets)
    assert (adjusted.predicted_category == 2).all() and (adjusted.probabilities()[0][:,2] > .99).all()
    adjusted.save(file)
    assert FashionInterpretation.load(file).category_offsets == offsets
    arrays = dict(np.load(file))
    for name in ('image_groups','folds','fold_temperatures'): arrays.pop(name) # as an older version wrote
    np.savez_compressed(tmp_path/'older.npz', **arrays)
    assert FashionInterpretation.load(tmp_path/'older.npz').folds is None
    raw = file.read_bytes()
    for bad in (raw[:2000], b'', b'a shirt'):
        file.write_bytes(bad)
        with pytest.raises(InputError, match='cannot be read as saved predictions'): FashionInterpretation.load(file)
    for name,value in (('folds', np.full(len(interp), 9)), ('image_groups', np.zeros(3, int)), ('fold_temperatures', np.zeros((5,2)))):
        np.savez_compressed(file, **{**dict(np.load(tmp_path/'older.npz')), name: value})
        with pytest.raises(InputError, match=f'{name} has'): FashionInterpretation.load(file)
    with pytest.raises(InputError, match='no such file'): FashionInterpretation.load(tmp_path/'none.npz')

def test_calibration_plots_show_temperatures_that_were_fitted_to_other_images(interp):
    held_out,own = interp.held_out_probabilities(),interp.probabilities()
    for k,(category,attribute) in enumerate(interp.fold_temperatures):
        rows = interp.folds == k
        assert torch.allclose(held_out[1][rows], (interp.logits[1][rows]/attribute).sigmoid(), atol=1e-6)
    assert not torch.equal(held_out[1], own[1]) and torch.equal(replace(interp, folds=None).held_out_probabilities()[1], own[1])
    error = calibration(interp.attributes.numpy(), held_out[1].numpy())[3]
    assert f'ECE {error:.3f}' in [o.get_text() for o in plot_calibration(interp).axes[1].get_legend().get_texts()][1]

def test_missing_images_are_grey_cards(interp, tmp_path):
    copies = [shutil.copy(o, tmp_path/f'{i}.jpg') for i,o in enumerate(interp.images)]
    copies[3].unlink()
    figure = plot_results(replace(interp, images=copies), seed=3)
    assert len(figure.axes) == 12 and sum(o.title.get_color() == '#0072b2' for o in figure.axes) >= 6
    only_missing = replace(interp, images=['']*len(interp))
    assert all('image is missing' in [o.get_text() for o in ax.texts] for ax in plot_results(only_missing, 6).axes)

def test_the_largest_losses_come_first(interp):
    losses = [float(o.texts[-1].get_text().split()[1]) for o in plot_top_losses(interp, 'category').axes]
    assert losses == sorted(losses, reverse=True) and losses[0] == round(interp.losses('category').max().item(), 2)
    with pytest.raises(InputError, match="part 'colour'"): plot_top_losses(interp, 'colour')

def test_figures_show_the_counts_and_scores_of_the_predictions(interp):
    cells = plot_confusion(interp).axes[0].texts
    assert sum(int(o.get_text()) for o in cells) == len(interp)
    assert sum(int(o.get_text()) for o in cells if o.get_position()[0] == o.get_position()[1]) == interp.correct.sum()
    assert 'the 3 most frequent of 10' in plot_confusion(interp, 3).axes[0].get_title()
    axes = plot_precision_recall(interp).axes
    expected = label_scores(interp.vocab.attributes, interp.predicted, interp.attributes)[['recall','precision']].values
    assert np.allclose([o.lines[1].get_xydata()[0] for o in axes], expected, atol=1e-6) and axes[0].get_title().startswith('red\nF1 0.')
    values = plot_correlations(interp).axes[0].images[0].get_array()
    i,j = (interp.vocab.attributes.index(o) for o in ('long_sleeved','sleeveless'))
    assert values[i,j] == pytest.approx(np.corrcoef(interp.attributes[:,i], interp.attributes[:,j])[0,1]) and values[i,j] < 0 # no garment has both
    history = pd.read_csv(example_run()/'history.csv')
    assert plot_history(history).axes[2].lines[0].get_ydata().tolist() == history.accuracy.tolist()
    assert len(plot_history(history.drop(columns='size')).axes) == 6

def test_calibration_errors_are_those_that_can_be_computed_by_hand():
    rng = np.random.default_rng(0)
    p = rng.random(100_000)
    assert calibration(rng.random(100_000) < p, p)[3] == pytest.approx(0, abs=.01)
    assert calibration(rng.random(100_000) < p**2, p)[3] == pytest.approx(1/6, abs=.01) # the mean of p - p**2
    assert calibration([1,1,0,1], [.5,.5,.5,1.])[3] == pytest.approx(.75/6) # values on the edges of bins

def test_tables_of_a_run_are_sorted_and_shortened(tmp_path):
    times = time_table(dict(loading=1., backward=6., forward=3., loss=.001))
    assert [o[0] for o in times.rows] == ['backward','forward','loading'] and times.rows[0] == ['backward','6.0','60.0%']
    assert times.bars[0] == pytest.approx(6/10.001) and {'system','cores','threads'} <= set(machine())
    many = {f'label_{k}': dict(images=k, precision=k/50, recall=k/50, f1=k/50) for k in range(50)}
    long = label_table(many, 'Attributes')
    assert (len(long.rows), long.rows[0][0], long.rows[-1][0]) == (40, 'label_1', 'label_49')
    write_label_scores(read_run(example_run())._replace(folder=tmp_path, metrics=dict(attributes=many)))
    assert len(pd.read_csv(tmp_path/'label_scores.csv')) == 50
    scores = dict(red=dict(images=9, precision=.5, recall=.4, f1=.44), mini=dict(images=0, precision=0, recall=0, f1=0),
        blue=dict(images=1200, precision=.2, recall=.1, f1=.13))
    assert [o[:2] for o in label_table(scores, 'Attributes').rows] == [['blue','1,200'], ['red','9'], ['mini','0']] # lowest F1 first
    metrics = json.loads((example_run()/'metrics.json').read_text())
    assert 'top-3 accuracy' in ranking_table(metrics).rows[0][0] and ranking_table({}) is None
    folds = dict(folds=[dict(fold=k, n_valid=1000, accuracy=.7, mean_f1=.6, minutes=2.) for k in (1,2)],
        spread={o: dict(mean=.65, sd=.01) for o in ('accuracy','mean_f1')})
    assert fold_score_table(folds).rows == [['1','1,000','0.7000','0.6000','2.0'], ['2','1,000','0.7000','0.6000','2.0'],
        ['mean','','0.6500','0.6500',''], ['sd','','0.0100','0.0100','']]

class Page(HTMLParser):
    "Texts, links and images of a page"
    def __init__(self, path):
        super().__init__()
        self.texts,self.links,self.images = [],[],[]
        self.feed(path.read_text(encoding='utf-8'))
        self.text = ' '.join(self.texts)
    def handle_data(self, data): self.texts.append(data)
    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.links += [o for k in ('src','href') if (o := attrs.get(k))]
        if tag == 'img': self.images.append(attrs)

def test_a_report_shows_what_is_there_and_says_what_is_missing(tmp_path):
    run = Path(shutil.copytree(example_run(), tmp_path/'first <b> & run'))
    path,metrics = write_report(run),json.loads((run/'metrics.json').read_text())
    page = Page(path)
    for o in ('Run first <b> & run', f"{metrics['accuracy']:.3f}", f"{metrics['mean_f1']:.3f}", 'Grad-CAM', 'Time per phase', '40x30:4 64x48:6',
            'constant-prediction baseline: 0.'): assert o in page.text, o
    assert all(o.startswith('data:') for o in page.links) and all(o['alt'] for o in page.images) and path.stat().st_size < 3_000_000
    # images, model and everything but the history are removed one after the other
    raw = dict(np.load(run/'validation.npz'))
    np.savez_compressed(run/'validation.npz', **{**raw, 'images': np.array([f'/missing/{i}' for i in range(len(raw['images']))])})
    assert 'The images are missing, or cannot be read' in Page(write_report(run)).text
    (run/'model.json').unlink()
    assert 'No heat maps' in Page(write_report(run)).text
    (run/'validation.npz').write_bytes(b'')
    for o in ('metrics.json','settings.ini'): (run/o).unlink()
    page = Page(write_report(run))
    assert 'unfinished: 10 epochs' in page.text and 'No predictions' in page.text
    assert [o['alt'] for o in page.images] == ['Losses, scores, learning rate and image size over the epochs']
    (run/'history.csv').unlink()
    with pytest.raises(InputError, match='contains no run'): write_report(run)

def test_a_report_that_fails_is_a_warning(interp, learn, tmp_path):
    run = Path(shutil.copytree(example_run(), tmp_path/'run'))
    save_report(run, interp, learn, page=False)
    assert torch.equal(FashionInterpretation.load(run/'validation.npz').predicted, interp.predicted)
    with pytest.warns(UserWarning, match='the run is saved, but its report could not be written'): save_report(run/'history.csv', interp, learn)

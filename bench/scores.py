"""How honest the reported Mean F1 is: reported minus true score of a tuned decision, for few validation images.

`best of all` is the cross-fitted score of the best rule; `nested` is what a run reports, where the rule is chosen without the images it is
scored on. Each repetition draws validation images; the true score is that of 4,000 others. The error of a fixed rule, which is 0 in the
mean, is subtracted from both (a control variate), so that some hundred repetitions are enough."""
import numpy as np,torch
from fashion_fastai.decision.rules import Threshold
from fashion_fastai.decision.tune import decide
from fashion_fastai.metrics import f1_per_image
from record import arguments,save

N_COLOURS,N_OTHERS = 6,9

def garments(n, rng, noise=1.7):
    "Label sets (one colour, some of nine other attributes) and the logits of a network that is noisy and overconfident"
    colours = np.eye(N_COLOURS, dtype=int)[rng.integers(N_COLOURS, size=n)]
    others = rng.random((n,N_OTHERS)) < np.geomspace(.5, .03, N_OTHERS)
    labels = np.concatenate([colours, others], 1).astype(int)
    prior = np.log(labels.mean(0).clip(1e-3)/(1 - labels.mean(0)))
    return torch.from_numpy(labels),torch.from_numpy(prior + 3.5*labels + noise*rng.standard_normal(labels.shape) - 1).float()*1.5

def errors(n, rng, training_sets, groups_of=1):
    "Reported minus true Mean F1 of one decision on `n` images: of the best of all rules, and nested"
    def many(n):
        labels,logits = garments(-(-n//groups_of), rng)
        return labels.repeat_interleave(groups_of, 0)[:n],logits.repeat_interleave(groups_of, 0)[:n]
    labels,logits = many(n)
    groups = np.arange(n)//groups_of if groups_of > 1 else None
    decision = decide((torch.zeros(n, 1), logits), torch.zeros(n, dtype=torch.long), labels, training_sets, image_groups=groups)
    new_labels,new_logits = garments(4000, rng)
    def true_score(rule, temperature): return f1_per_image(rule((new_logits/temperature).sigmoid().numpy()), new_labels).mean()
    half = decision.scores['half'] - true_score(Threshold(), 1.)
    true = true_score(decision.rule, decision.temperatures[1])
    return max(decision.scores.values()) - true - half,decision.mean_f1 - true - half

def main():
    args = arguments(__doc__, repetitions=800, sizes='20 50 150', groups_of=1)
    torch.set_num_threads(1)
    table,figures = [['validation images', 'best of all rules', 'standard error', 'nested', 'standard error']],{}
    for n in map(int, args.sizes.split()):
        rng = np.random.default_rng(n)
        training_sets = garments(2000, rng)[0]
        measured = np.array([errors(n, rng, training_sets, args.groups_of) for _ in range(args.repetitions)])
        means,deviations = measured.mean(0),measured.std(0, ddof=1)/np.sqrt(len(measured))
        table.append([f'{n:,}', *(f'{o:+.4f}' for pair in zip(means, deviations) for o in pair)])
        print(' '.join(table[-1]), flush=True)
        for what,o in zip(('best of all rules','nested'), means):
            figures[f'reported minus true, {what}, {n} images'] = float(o),None
    save('scores', args, table, figures)

if __name__ == '__main__': main()
